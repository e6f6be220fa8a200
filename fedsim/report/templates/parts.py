"""What several pages show alike."""

TEMPLATE = """\
{% macro picture(it, live=none) %}
<section{% if live and it.live %} class="still"{% endif %}><h2>{{ it.title }}</h2>
<div class="picture">{{ it.svg | safe }}</div>
<p class="quiet">{{ it.caption }}</p></section>
{% endmacro %}
{% macro configs(text) %}
<section><h2>Configs</h2><pre>{{ text }}</pre></section>
{% endmacro %}
"""
