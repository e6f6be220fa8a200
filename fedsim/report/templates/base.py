"""The frame of every page: no network, and a script that adds to what stands there without it."""

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'">
<title>fedsim: {% block name %}{{ title | lower }}{% endblock %}</title>
<style>
{{ style | safe }}</style>
</head>
<body><main>
<header><h1>{% block heading %}{{ title }}{% endblock %}</h1></header>
{% block body %}{% endblock %}
</main>
<script>{{ script | safe }}</script>
{% block script %}{% endblock %}
</body></html>
"""
