"""What our pages are made of: a style, charts, curves over a log, and the engine that fills a template."""
