"""Azure ML on this machine: everything that the product speaks to, with a memory of what exists and what would bill.

README.md beside this file lists what had to be assumed. Nothing here is Azure.
"""
