"""What an order would have brought that was not shown, from answers whose order was drawn."""
