"""The page of what architectures give away."""

TEMPLATE = """\
{% extends "base" %}
{% import "parts" as parts %}
{% block body %}
<p class="quiet">The server sees one update of one example of shape {{ shape }}. {{ protocol }}.
Nothing here is a promise: a joint attack may recover what recursion cannot.</p>
<section><h2>In words</h2>
<div class="scroll" role="region" aria-label="Models"><table class="data">
<tr><th>model</th>{% for head in heads %}<th>{{ head }}</th>{% endfor %}
<th class="text">verdict</th></tr>
{% for cells in rows %}
<tr><td>{{ cells[0] }}</td>{% for cell in cells[1:-1] %}<td>{{ cell }}</td>{% endfor %}
<td class="text"><b>{{ cells[-1] }}</b></td></tr>
{% endfor %}
</table></div></section>
{% for picture in pictures %}
{{ parts.picture(picture) }}
{% endfor %}
{% for model in models %}
<section><h2>{{ model.name }}: {{ model.verdict.text }}</h2>
{% for reason in model.verdict.reasons %}<p>{{ reason }}.</p>{% endfor %}
{% for sentence in model.labels %}<p>Labels: {{ sentence }}.</p>{% endfor %}
<div class="scroll" role="region" aria-label="Layers"><table class="data">
<tr><th>layer</th><th>equations</th><th>unknowns</th><th>rank</th><th>open</th>
<th>under no window</th></tr>
{% for it in model.systems %}
<tr><td>{{ it.name }} ({{ it.kind }})</td><td>{{ it.rows }}</td><td>{{ it.unknowns }}</td>
<td>{{ it.rank }}</td><td>{{ it.deficiency }}</td><td>{{ it.dead }}</td></tr>
{% endfor %}
</table></div>
{% if model.others %}<p class="quiet">No closed form, in J alone:
{{ model.others | join(", ") }}.</p>{% endif %}
{% if model.obstacles %}
<p><b>What makes an attack fail:</b></p><div class="scroll"><table>
{% for it in model.obstacles %}
<tr><td>{{ it.name }}</td><td class="text">{{ it.value }}</td>
<td class="text long">{{ it.sentence }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
</section>
{% endfor %}
{% endblock %}
"""
