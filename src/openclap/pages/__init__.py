"""Parts of the HTML reports: the style, charts, curves over a training log, and rendering of templates."""
