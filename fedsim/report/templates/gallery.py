"""The run report's sections on recovered pictures."""

TEMPLATE = """\
{% for gallery in galleries %}
<section><h2>Recovered by {{ gallery.attack }}</h2>
{% if gallery["values"] %}
<table class="values">
<tr><th></th>{% for name, value, blind in gallery["values"] %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>mean over clients and rounds</td>
{% for name, value, blind in gallery["values"] %}<td>{{ value }}</td>{% endfor %}</tr>
<tr><td>blind picture</td>
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
{% endif %}
<i>Blind</i> is the mean auxiliary image, which uses no update. The blur only hides the pictures
from view: this file has all pixels.</p>
{% else %}
<p class="quiet">{{ gallery.sentences | join(" ") }}</p>
{% endif %}
</section>
{% endfor %}
"""
