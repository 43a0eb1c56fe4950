"""What the words on the page mean, for a reader who has not met them."""

TEMPLATE = """
<section id="words"><h2>What the words mean</h2><dl>
<dt>MCC</dt><dd>Matthews correlation coefficient: how well the predicted classes agree with the true ones, all classes
and both kinds of error
counted. 1 is perfect, 0 is no better than guessing, below 0 is worse than guessing. Always naming the most common
class gives 0.</dd>
<dt>95% interval</dt><dd>What chance leaves open, since other patients might have come. The patients are drawn again
and again with replacement
and measured each time; the interval holds the middle 95% of the results. It is wide where patients are few. It does
not cover another hospital,
another scanner or another training run.</dd>
<dt>Balanced accuracy</dt><dd>The share of right answers within each class, averaged, so that a rare class counts as
much as a common one.</dd>
<dt>AUROC</dt><dd>The chance that a patient with the class gets a higher probability of it than a patient without; the
mean over the classes.
0.5 is guessing.</dd>
<dt>Brier score</dt><dd>How far the probabilities are from the truth, squared and summed over the classes. 0 is
perfect, 2 is worst.</dd>
<dt>Calibration error</dt><dd>The gap between how sure the model says it is and how often it is right (ECE, 15 bins).
With few patients it
comes out too high, and its interval would mislead, so none is given.</dd>
<dt>External hospital</dt><dd>It took no part in training and chose nothing: no setting, no round and no model. The
model is the last round's, or one
chosen on patients held back inside the training hospitals.</dd>
<dt>Round</dt><dd>Each hospital trains for a while on its own patients and sends back what it learned, never images;
the server averages.</dd>
{% if view.calibration %}<dt>Temperature</dt><dd>One number that makes all probabilities less extreme (above 1) or more so (below
1), found on patients held out inside the training hospitals (Guo et al., ICML 2017).</dd>{% endif %}
{% if view.sets %}<dt>Prediction set</dt><dd>The classes that cannot be ruled out (split conformal prediction). The
promise is
kept on average over patients like those it was calibrated on, not for each patient and not for another kind of
patients.</dd>{% endif %}
</dl></section>
"""
