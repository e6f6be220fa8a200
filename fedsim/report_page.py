"""The report's page as a Jinja template.

Kept in Python because Flower's app bundle carries no HTML files.
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedsim: {{ runs | map(attribute="name") | join(", ") }}</title>
<style>
body { margin: 0; background: #f5f5f3; color: #222; font: 15px/1.5 system-ui, sans-serif }
main { max-width: 900px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 0 0 .6rem }
section, .tile { background: #fff; border: 1px solid #e3e3df; border-radius: 8px }
section { padding: 1.1rem 1.3rem; margin-top: 1rem; overflow-x: auto }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem;
  margin-top: 1.2rem }
.tile { padding: .8rem 1rem } .tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.tile span, .quiet, caption { color: #666; font-size: .87rem }
svg { max-width: 100%; height: auto; display: block }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .28rem .6rem; border-bottom: 1px solid #eee }
th { font-weight: 600; color: #555; font-size: .87rem } th:first-child, td:first-child,
td.text, th.text { text-align: left }
pre { overflow-x: auto; background: #fafaf8; padding: .8rem; font-size: .8rem }
</style>
</head>
<body><main>
<h1>{{ runs | map(attribute="name") | join(" · ") }}</h1>
<p class="quiet">What an honest-but-curious server learned from the updates of this federation,
round by round.</p>
{% if runs | length == 1 %}
{% set run = runs[0] %}
<div class="tiles">
{% if run.accuracy[1] | length %}
  <div class="tile"><b>{{ run.accuracy[1][-1] | percent }}</b><span>test accuracy, round
  {{ run.accuracy[0][-1] }}</span></div>
{% endif %}
{% for curve in run.curves %}
  <div class="tile"><b>{{ curve.mean.mean() | percent }}</b><span>{{ curve.attack }},
  {{ curve.metric }} over all rounds (blind {{ curve.blind.mean() | percent }})</span></div>
{% endfor %}
  <div class="tile"><b>{{ run.failures | length }}</b><span>failures</span></div>
</div>
{% endif %}
{% for title, caption, svg in pictures %}
<section><h2>{{ title }}</h2>{{ svg | safe }}<p class="quiet">{{ caption }}</p></section>
{% endfor %}
<section><h2>Attacks</h2>
<table>
<tr>{% if runs | length > 1 %}<th class="text">run</th>{% endif %}<th class="text">attack</th>
<th class="text">family</th><th class="text">metric</th><th>first round</th><th>last round</th>
<th>mean</th><th>blind</th><th>skill</th><th>exact</th><th>ms</th></tr>
{% for run in runs %}{% for curve in run.curves %}
<tr>{% if runs | length > 1 %}<td class="text">{{ run.name }}</td>{% endif %}
<td class="text">{{ curve.attack }}</td><td class="text">{{ curve.family }}</td>
<td class="text">{{ curve.metric }}</td><td>{{ curve.mean[0] | percent }}</td>
<td>{{ curve.mean[-1] | percent }}</td><td>{{ curve.mean.mean() | percent }}</td>
<td>{{ curve.blind.mean() | percent }}</td><td>{{ "%.2f" | format(curve.skill) }}</td>
<td>{{ curve.exact | percent }}</td><td>{{ "%.2f" | format(curve.milliseconds) }}</td></tr>
{% endfor %}{% endfor %}
</table>
<p class="quiet">Larger is more leakage. <i>Blind</i> is the same metric for the best guess without
looking at any update; <i>skill</i> = (value − blind) / (1 − blind), so that 0 is no leakage and 1
is full knowledge; <i>exact</i> is the share of clients and rounds with every count right;
<i>ms</i> is the time of one attack on one client. {% if runs | length == 1 and not runs[0].curves %}
Nothing could be graded: no ground truth is at hand.{% endif %}</p>
</section>
{% for run in runs %}{% if run.failures %}
<section><h2>Failures{% if runs | length > 1 %} of {{ run.name }}{% endif %}</h2>
<table><tr><th>round</th><th>client</th><th class="text">what</th><th class="text">reason</th></tr>
{% for row in run.failures[:50] %}
<tr><td>{{ row.round }}</td><td>{{ row.client }}</td><td class="text">{{ row.metric }}</td>
<td class="text">{{ row.reason }}</td></tr>
{% endfor %}
</table>
{% if run.failures | length > 50 %}<p class="quiet">and {{ run.failures | length - 50 }} more in
metrics.parquet</p>{% endif %}
</section>
{% endif %}{% endfor %}
<section><h2>Setting</h2>
<table>
<tr><th></th>{% for run in runs %}<th class="text">{{ run.name }}</th>{% endfor %}</tr>
{% for key in runs[0].facts %}
<tr><td>{{ key }}</td>{% for run in runs %}<td class="text">{{ run.facts[key] }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% if runs | length == 1 %}
<details><summary class="quiet">The whole config</summary>
<pre>{{ (runs[0].folder.path / "config.toml").read_text() }}</pre></details>
{% endif %}
</section>
</main></body></html>
"""
