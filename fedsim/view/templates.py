"""The view's own pages as Jinja templates; reports are served as they are."""

FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>fedsim: {{ title }}</title>
<noscript><meta http-equiv="refresh" content="10"></noscript>
<style>
:root { --page: #f5f5f3; --card: #fff; --line: #e3e3df; --text: #222; --quiet: #5c5c5c;
  --link: #0b62a4; --good: #1a7f37; --bad: #b00020; --wait: #8a5a00 }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --card: #1f2226; --line: #363a40;
  --text: #e6e6e3; --quiet: #a3a7ad; --link: #7cc0f5; --good: #6fd58a; --bad: #ff8c93;
  --wait: #e5b55c } }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1200px; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 1.4rem 0 .4rem }
a { color: var(--link) }
.quiet { color: var(--quiet); font-size: .87rem; overflow-wrap: anywhere }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .4rem .9rem; margin-top: .9rem; overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0;
  border-bottom: 1px solid var(--line); font-size: .9rem }
tr:last-child td { border-bottom: 0 }
th { color: var(--quiet); font-weight: 600; white-space: nowrap }
td.number, th.number { text-align: right; white-space: nowrap }
td.name { overflow-wrap: anywhere; min-width: 9rem }
td.whole { white-space: nowrap }
.running, .finished { color: var(--good) } .running { font-weight: 600 }
.failed, .unreadable { color: var(--bad) } .stopped { color: var(--wait) }
progress { width: 100%; accent-color: var(--good) }
@media (max-width: 720px) {
  thead { display: none }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line) }
  td, td.number { display: inline-block; text-align: left; border: 0; padding: 0 .7rem 0 0 }
  td.name { display: block }
}
</style>
</head>
<body><main>
{% block body %}{% endblock %}
<div id="live" data-version="{{ version }}" data-wait="{{ wait }}">
{{ rows }}
</div>
</main>
<script nonce="{{ nonce }}">
const live = document.getElementById('live');
async function look() {
  try {
    if (!document.hidden) {
      const reply = await fetch('{{ url }}?v=' + live.dataset.version, {cache: 'no-store'});
      if (reply.status === 200) {
        live.innerHTML = await reply.text();
        live.dataset.version = reply.headers.get('X-Version');
        live.dataset.wait = reply.headers.get('X-Wait');
      }
    }
  } catch (error) { live.dataset.wait = 10; }
  setTimeout(look, 1000 * live.dataset.wait);
}
setTimeout(look, 1000 * live.dataset.wait);
</script>
</body></html>
"""
INDEX = """\
{% extends "frame" %}
{% block body %}<h1>Runs in {{ root }}</h1>{% endblock %}
"""
ROWS = """\
{% if groups %}<p class="quiet">Reports of sweeps, audits and games:
{% for group in groups %}<a href="/group/{{ group | path }}">{{ group }}</a>
{% endfor %}</p>{% endif %}
{% if not runs %}<p>No runs yet. <code>fedsim run</code> makes one.</p>{% else %}
<div class="card"><table>
<thead><tr><th>run</th><th>date</th><th>state</th><th class="number">rounds</th>
<th class="number">accuracy</th><th>strongest attack</th><th>setting</th></tr></thead>
<tbody>
{% for run in runs %}
<tr><td class="name">{% if run.readable %}<a href="/run/{{ run.key | path }}">{{ run.key }}</a>
{% else %}{{ run.key }}{% endif %}</td>
<td class="whole quiet">{{ run.date }}</td><td class="{{ run.state }}">{{ run.state }}</td>
<td class="number">{{ run.rounds }}</td><td class="number">{{ run.accuracy }}</td>
<td>{{ run.strongest }}</td><td class="quiet">{{ run.setting }}</td></tr>
{% endfor %}
</tbody></table></div>{% endif %}
"""
LIVE = """\
{% extends "frame" %}
{% block body %}<p class="quiet"><a href="/">All runs</a></p><h1>{{ title }}</h1>{% endblock %}
"""
STATE = """\
<p><span class="{{ run.state }}">{{ run.state }}</span>, {{ run.rounds }} rounds{% if run.reason %}:
{{ run.reason }}{% endif %}
{% if run.report %} · <a href="/report/{{ run.key | path }}">report</a>{% endif %}</p>
{% if run.planned %}<progress max="{{ run.planned }}" value="{{ run.done }}"></progress>{% endif %}
<p class="quiet">Accuracy {{ run.accuracy }} · strongest attack {{ run.strongest }} ·
begun {{ run.date }}<br>{{ run.setting }}</p>
{% if run.attacks %}
<div class="card"><table>
<thead><tr><th>attack</th><th>metric</th><th class="number">mean so far</th>
<th class="number">blind</th><th class="number">skill</th><th>not answered</th></tr></thead><tbody>
{% for row in run.attacks %}
<tr><td class="name">{{ row.attack }}</td><td>{{ row.metric }}</td>
<td class="number">{{ row.value }}</td><td class="number">{{ row.blind }}</td>
<td class="number">{{ row.skill }}</td><td class="quiet">{{ row.missing }}</td></tr>
{% endfor %}
</tbody></table></div>{% endif %}
<p>{{ run.picture }}</p>
"""
TEMPLATES = {"frame": FRAME, "index": INDEX, "rows": ROWS, "live": LIVE, "state": STATE}
