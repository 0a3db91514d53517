"""The companion: everything that only the book needs, above the library (extra `companion`).

Studies turn configurations into records; claims and figures read records. The library never
imports any of it.
"""
