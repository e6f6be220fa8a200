"""The run report's sections on recovered pictures and records."""

TEMPLATE = """\
{% for gallery in galleries %}
<section><h2>Recovered by {{ gallery.attack }}</h2>
{% if gallery["values"] %}
<table class="values">
<tr><th></th>{% for name, value, blind in gallery["values"] %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>mean over clients and rounds</td>
{% for name, value, blind in gallery["values"] %}<td>{{ value }}</td>{% endfor %}</tr>
<tr><td>{{ "blind" if gallery.table else "blind picture" }}</td>
{% for name, value, blind in gallery["values"] %}<td>{{ blind }}</td>{% endfor %}</tr>
</table>
{% endif %}
{% if gallery.examples %}
<input type="checkbox" class="reveal" id="reveal-{{ loop.index }}">
<label for="reveal-{{ loop.index }}">Show the pictures. They are blurred because they may be
private.</label>
{% for heading, size, examples in (
  (gallery.heading, "", gallery.examples),
  ("Best example of each attacked round", " small", gallery.rounds)) if examples %}
<p><b>{{ heading }}</b></p>
<div class="gallery{{ size }}">
{% for example in examples %}
<figure>
{% for what, uri in example.pictures.items() %}
<span><i><img src="{{ uri }}" alt="{{ what }}"></i>{{ what }}</span>
{% endfor %}
<figcaption><b>{{ example.title }}</b>{% for line in example.caption %}<br>{{ line }}{% endfor %}
</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
<p class="quiet">{{ gallery.sentences | join(" ") }}
{% if gallery.rounds %}<i>Difference</i> is the distance of each pixel; black is no difference.
{% endif %}{% if gallery.uncertain %}<i>Uncertainty</i> is the standard deviation of each pixel over
the attack's restarts, which it states without the truth; its largest is white. Restarts can agree
on a wrong pixel: it bounds no error. {% endif %}
<i>Blind</i> is the mean auxiliary image, which uses no update. The blur only hides the pictures
from view: this file has all pixels.</p>
{% elif gallery.table %}
<input type="checkbox" class="reveal" id="reveal-{{ loop.index }}">
<label for="reveal-{{ loop.index }}">Show the records. They are blurred because they may be
private.</label>
<p><b>{{ gallery.heading }}</b></p>
<div class="scroll records" role="region" aria-label="Recovered records"><table>
<tr><th></th>{% for record in gallery.table.records %}
<th class="text" colspan="2">{{ record.title }}<br><small>{{ record.caption }}</small></th>
{% endfor %}</tr>
<tr><th>column</th>{% for record in gallery.table.records %}<th class="text">original</th>
<th class="text">recovered</th>{% endfor %}</tr>
{% for column in gallery.table.columns %}{% set row = loop.index0 %}
<tr><td>{{ column }}</td>{% for record in gallery.table.records %}
{% set cell = record.cells[row] %}
<td class="text"><span class="said">{{ cell.original }}</span></td>
<td class="text"><span class="said {{ cell.mark }}">{{ cell.recovered }}</span>
{% if cell.sure %}<small>{{ cell.sure }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% if gallery.table.calibration %}
<p><b>Is the attack right where it is sure?</b></p>
<div class="scroll" role="region" aria-label="Accuracy by confidence"><table>
<tr><th>confidence</th><th>cells</th><th>right</th></tr>
{% for span, count, share in gallery.table.calibration %}
<tr><td>{{ span }}</td><td>{{ count }}</td><td>{{ share }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
<p class="quiet">{{ gallery.sentences | join(" ") }} <span class="hit">Marked</span> cells are
right: a category exactly, a number within 0.319 standard deviations;
<span class="miss">struck</span> ones are not. {% if gallery.table.calibration %}The percentage
beside a cell is the attack's confidence, which it states without the truth. {% endif %}The
<i>blind</i> record has the mode or the mean of each column, which uses no update. The blur only
hides the records from view: this file has every cell.</p>
{% else %}
<p class="quiet">{{ gallery.sentences | join(" ") }}</p>
{% endif %}
</section>
{% endfor %}
"""
