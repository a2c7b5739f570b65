"""`openclap dataset`: build data sets from collections of sounds."""

from __future__ import annotations

from cyclopts import App

from openclap.cli.dataset import build, caption, card, check, sources, steps

app = App(name="dataset", help="Build, check and publish data sets in shards.", group_commands="Commands")
app.command(build.build)
app.command(steps.plan)
app.command(steps.fetch)
app.command(caption.caption)
app.command(steps.pack)
app.command(steps.merge)
app.command(check.check)
app.command(sources.sources)
app.command(card.stats)
app.command(card.card)
app.command(card.push)
