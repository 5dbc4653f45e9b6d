"""The learned part of the refusal judge: a linear model on character n-grams and on the structure of an answer."""
