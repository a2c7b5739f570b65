"""From URLs to whole files: many at once, politely, going on where a stop left off.

nouns       what is asked for, and what came of it
addresses   which addresses are nobody's business but their own network's
wire        connections that never reach those, and that end when they are told to
polite      whose turn it is: limits for each host, pauses, giving up
partial     the unfinished file and what is known of it
sniff       pages, pictures and archives that are sent in place of a sound
attempt     one request
run         all of them
"""

from openclap.data.fetch.nouns import Failed, Fetched, Limits, Reason, Wanted
from openclap.data.fetch.run import AHEAD, fetch

__all__ = ["AHEAD", "Failed", "Fetched", "Limits", "Reason", "Wanted", "fetch"]
