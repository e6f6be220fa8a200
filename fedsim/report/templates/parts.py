"""What several pages show alike."""

TEMPLATE = """\
{% macro picture(it, live=none) %}
<section{% if live and it.live %} class="still"{% endif %}><h2>{{ it.title }}</h2>
<div class="picture">{{ it.svg | safe }}</div>
<p class="quiet">{{ it.caption }}</p></section>
{% endmacro %}
{% macro configs(text) %}
<section><h2>Settings</h2><pre>{{ text }}</pre>
<p class="quiet">What is not the default. configs.txt beside this page has all.</p></section>
{% endmacro %}
"""
