"""The page of one run, or of several compared."""

TEMPLATE = """\
{% extends "base" %}
{% import "parts" as parts %}
{% import "tables" as tables %}
{% import "explore" as explore with context %}
{% set several = runs | length > 1 %}
{% block name %}{{ (runs | map(attribute="name") | list)[:4] | join(", ") }}{% endblock %}
{% block heading %}
{% if runs | length > 4 %}{{ runs | length }} runs compared
{%- else %}{{ runs | map(attribute="name") | join(" · ") }}{% endif %}
{% endblock %}
{% block body %}
<p class="quiet">What an honest-but-curious server learned from the updates of this federation,
round by round.</p>
{% for it in repeats %}{% for sentence in it.verdict %}
<p class="verdict"><b>{{ it.label }}:</b> {{ sentence }}</p>
{% endfor %}{% endfor %}
{% for run, it in verdicts %}
{% if several %}
<p class="verdict{% if it.leaks %} leaks{% endif %}"><b>{{ run.label }}:</b> {{ it.headline }}</p>
{% else %}
<section class="verdict{% if it.leaks %} leaks{% endif %}" aria-label="Verdict"><h2>Verdict</h2>
{% for paragraph in it.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
</section>
{% endif %}
{% endfor %}
{% if not several %}
{% set run = runs[0] %}
<div class="tiles">
{% if run.accuracy[1] | length %}
  <div class="tile"><b>{{ run.accuracy[1][-1] | percent }}</b><span>test accuracy, round
  {{ run.accuracy[0][-1] }}</span></div>
{% endif %}
{% if run.perplexity is not none %}
  <div class="tile"><b>{{ "%.4g" | format(run.perplexity) }}</b><span>perplexity of a test token,
  round {{ run.accuracy[0][-1] }}</span></div>
{% endif %}
{% for curve in tiles %}
  {% set above = curve.main.value > curve.main.blind_value %}
  <div class="tile{% if not above %} below{% endif %}">
  <b>{{ curve.main.value | of(curve.metric) }}</b><span>{% if not above %}<i>not above blind</i>
  {% endif %}{{ curve.title }}, mean
  {{ curve.metric_name }}
  {%- if curve.answers.counts %} over {{ curve.answers.answered }} of {{ curve.answers.updates }}
  updates{% endif %};
  <span class="nowrap">blind {{ curve.main.blind_value | of(curve.metric) }}</span></span></div>
{% endfor %}
{% for family, attacks in run.silent.items() %}
  <div class="tile"><b class="refuted">not known</b><span>{{ family }}:
  {% if attacks | length > 1 %}all {{ attacks | length }} attacks
  {%- else %}{{ attacks[0].title }}{% endif %}
  {{ attacks | map(attribute="word") | unique | sort | join(" or ") }}</span></div>
{% endfor %}
  <div class="tile"><b>{{ run.failures | length - run.num_refusals }}</b><span>failures
  {%- if run.num_refusals %}, {{ run.num_refusals }} refusals{% endif %}</span></div>
</div>
{% endif %}
{% for kind, sentences in notices if sentences %}
<div class="{{ kind }}" role="note">
{% for name, sentence in sentences %}
<p>{% if several %}<b>{{ name }}:</b> {% endif %}{{ sentence }}</p>
{% endfor %}
</div>
{% endfor %}
{% if payload %}{{ explore.section() }}{% endif %}
{% for picture in pictures %}
{{ parts.picture(picture, payload) }}
{% endfor %}
{% if not several %}{{ tables.clients(exposed) }}{% endif %}
{{ tables.over_seeds(repeats) }}
{{ tables.audits_over_rounds(audits, several) }}
{% include "gallery" %}
{% include "text_gallery" %}
{% if defended %}{{ tables.defenses(defended, several) }}{% endif %}
{{ tables.attacks(runs, several) }}
{% for run in runs if run.failures %}
{{ tables.failures(run, groups(run.failures), several) }}
{% endfor %}
<section><h2>Setting</h2>
<div class="scroll" role="region" aria-label="Setting"><table>
<tr><th></th>{% for run in runs %}<th class="text">{{ run.label }}{% if run.label != run.name %}<br>
<span class="mark">{{ run.name }}</span>{% endif %}</th>{% endfor %}</tr>
{% for key in runs[0].facts %}
<tr><td>{{ key }}</td>
{% for run in runs %}<td class="text long">{{ run.facts[key] }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% if not several %}
<details><summary class="quiet">The whole config</summary>
<pre>{{ (runs[0].folder.path / "config.toml").read_text(encoding="utf-8") }}</pre></details>
{% endif %}
</section>
{% endblock %}
{% block script %}
{% if payload %}{{ explore.script(payload, library) }}{% endif %}
{% endblock %}
"""
