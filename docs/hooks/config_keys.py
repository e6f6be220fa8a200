"""Every key of the config, from `fedsim.config.reference`."""

from texts import code, docstring, table

from fedsim.config import reference

HEADER = ("key", "type and rule", "default", "meaning")


def page() -> str:
    """Return a section for each table of the config."""
    texts = []
    for section in reference.tables():
        title = f"`[{section.name}]`" if section.name else "Keys outside of tables"
        level = "###" if "." in section.name else "##"
        texts += [f"{level} {title}", docstring(section.description)]
        texts.append(table(HEADER, map(row, section.keys)))
    return "\n\n".join(texts)


def row(key: reference.Key) -> tuple[str, ...]:
    """Return the cells of one key."""
    plain = key.default in (reference.UNSET, reference.REQUIRED)
    default = key.default if plain else code(key.default)
    kind = f"{key.type}, {key.rule}" if key.rule else key.type
    return code(key.name), kind, default, key.description
