"""What tokens cost a model."""
