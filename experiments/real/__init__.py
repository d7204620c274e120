"""`make demo-real`: a real model, trained in three ways on a small mixture, evaluated and judged."""
