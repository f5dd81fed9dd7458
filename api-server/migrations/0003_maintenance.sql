-- Hosts on which nothing new is begun. Apart from what an agent's registration replaces.
CREATE TABLE maintenance (
    host_id TEXT PRIMARY KEY
) STRICT;
