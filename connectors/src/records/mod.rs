//! Records: how the vendors' audit records are read. A record is read twice at most: its *head*
//! (who, when, what; every record) and its *body*, turned into flat events (only the records that
//! some detector wants). Everything here is pure and never fails on members of an odd type.
