//! What a fault costs on this host, beside a bare exit.
