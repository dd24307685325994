"""`tidemill demo`: the whole loop on real documentation found on this machine."""
