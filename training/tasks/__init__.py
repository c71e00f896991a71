"""What a program trains or evaluates: its model, loss and prediction."""
