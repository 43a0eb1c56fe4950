"""What is learnt: the target of a patient, the head's outputs, and how answers are measured."""
