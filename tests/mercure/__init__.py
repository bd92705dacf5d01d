"""The Mercure endpoint, row by row of the protocol checklist; README.md is the table row → test or reason."""
