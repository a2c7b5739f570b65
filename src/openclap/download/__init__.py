"""Download many files: politely, resumable, checked, and never from a forbidden address.

types        files to fetch, limits, outcomes
fetching     `fetch`: draw requests, yield outcomes
session      turns of each host, retries, redirects
transfer     one request into one partial file
partial      the partial file and the metadata for resuming it
content      recognise pages, pictures and archives sent in place of a sound
connections  HTTP connections that check the address really connected to
addresses    public, private and forbidden addresses
"""

from openclap.download.fetching import AHEAD, fetch
from openclap.download.types import FailedFetch, FailureKind, FetchedFile, FetchLimits, FileRequest

__all__ = ["AHEAD", "FailedFetch", "FailureKind", "FetchLimits", "FetchedFile", "FileRequest", "fetch"]
