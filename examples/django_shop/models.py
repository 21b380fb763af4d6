"""Orders, and whether their customers were told."""

from django.db import models


class Order(models.Model):
    """One order; a shipped one without a job is yet to be told of."""

    phone = models.CharField(max_length=16)
    shipped = models.BooleanField(default=False)
    #: Of the text that says so.
    job = models.CharField(max_length=26, default="", editable=False)
    #: What became of that, and the `seq` of the event that told it.
    text = models.CharField(max_length=16, default="", editable=False)
    text_seq = models.IntegerField(default=0, editable=False)

    def __str__(self) -> str:
        return f"order-{self.pk}"
