"""The run report's sections on recovered texts."""

TEMPLATE = """\
{% macro pieces(column) %}
{% for piece in column %}<span class="{{ piece.marks }}">{{ piece.text }}</span>{% else %}–
{% endfor %}
{% endmacro %}
{% for gallery in text_galleries %}
<section><h2>Recovered by {{ gallery.attack }}</h2>
{% if gallery["values"] %}
<div class="scroll" role="region" aria-label="Values"><table class="values">
<tr><th></th>{% for name, value, blind in gallery["values"] %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>mean over clients and rounds</td>
{% for name, value, blind in gallery["values"] %}<td>{{ value }}</td>{% endfor %}</tr>
<tr><td>blind texts</td>
{% for name, value, blind in gallery["values"] %}<td>{{ blind }}</td>{% endfor %}</tr>
</table></div>
{% endif %}
{% if gallery.texts %}
<input type="checkbox" class="reveal" id="reveal-text-{{ loop.index }}">
<label for="reveal-text-{{ loop.index }}">Show the texts. They are blurred because they may be
private.</label>
<div class="texts">
{% for text in gallery.texts %}
<article><p><b>{{ text.title }}</b> · {{ text.caption }}</p>
{% for name, column in (("original", text.original), ("recovered", text.recovered),
  ("blind", text.blind)) %}
<div><small>{{ name }}</small><p class="said" dir="auto">{{ pieces(column) }}</p></div>
{% endfor %}
</article>
{% endfor %}
</div>
<p class="quiet">{{ gallery.sentences | join(" ") }} <span class="hit">Marked</span> tokens are
common to the text and the guess, in order; <span class="miss">struck</span> ones are not in the
text at their place; <span class="rare">dotted</span> words stand in no auxiliary text.
<i>Blind</i> is a random auxiliary text, which uses no update. The blur only hides the texts from
view: this file has every letter. Texts are chosen by rare words recovered, then by ROUGE-L.</p>
{% else %}
<p class="quiet">{{ gallery.sentences | join(" ") }}</p>
{% endif %}
</section>
{% endfor %}
"""
