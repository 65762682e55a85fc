"""Readers of exported models: one file per architecture, NumPy alone, made to be copied."""
