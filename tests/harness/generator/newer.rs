//! Templates of what servers newer than Redis 7.0 have, as [`super::templates`] has them for all.

/// Templates, by a command that just the servers have that know all of them.
pub(super) const NEWER: &[(&str, &[&str])] = &[
    // Redis 7.2, and every Valkey
    (
        "client|setinfo",
        &[
            "CLIENT SETINFO LIB-NAME tests",
            "CLIENT SETINFO LIB-VER 1.0",
            "CLIENT SETINFO NOSUCH <word>",
            "CLIENT NO-TOUCH OFF",
            "ZRANK <zset> <member> WITHSCORE",
            "ZREVRANK <zset> <member> WITHSCORE",
        ],
    ),
    // Redis 8.0
    (
        "hgetdel",
        &[
            "HSET <fading> <field> <value> <field> <value>",
            "HSET <fading> <field> <int>",
            "HEXPIREAT <fading> <at> FIELDS 2 <field> <field>",
            "HEXPIREAT <fading> <at> NX FIELDS 1 <field>",
            "HEXPIREAT <fading> 1 FIELDS 1 <field>",
            "HPEXPIREAT <fading> <at-ms> GT FIELDS 1 <field>",
            "HPEXPIREAT <fading> <at-ms> XX FIELDS 2 <field> nosuch",
            "HEXPIRETIME <fading> FIELDS 2 <field> nosuch",
            "HPEXPIRETIME <fading> FIELDS 1 <field>",
            "HPERSIST <fading> FIELDS 1 <field>",
            "HSETEX <fading> EXAT <at> FIELDS 1 <field> <value>",
            "HSETEX <fading> FNX PXAT <at-ms> FIELDS 2 <field> <value> <field> <int>",
            "HSETEX <fading> FXX KEEPTTL FIELDS 1 <field> <value>",
            "HGETEX <fading> EXAT <at> FIELDS 1 <field>",
            "HGETEX <fading> PERSIST FIELDS 2 <field> nosuch",
            "HGETDEL <fading> FIELDS 2 <field> <field>",
            "HGET <fading> <field>",
            "%HGETALL <fading>",
            "HLEN <fading>",
            "DEL <fading>",
            "HEXPIRE <hash> <long> FIELDS 1 <field>",
            "HPEXPIRE <hash> <long>000 NX FIELDS 1 <field>",
            "HSETEX <hash> EX <long> FIELDS 1 <field> <value>",
            "HGETDEL <hash> FIELDS 1 <field>",
            "HSET <lasting> <field> <value>",
            "HTTL <lasting> FIELDS 2 <field> nosuch",
            "HPTTL <lasting> FIELDS 1 <field>",
            "HTTL <never> FIELDS 1 <field>",
            "XREAD COUNT 2 STREAMS <stream> +",
        ],
    ),
    // The vector sets of Redis 8.0. With TRUTH it looks at all elements; else chance has a say.
    (
        "vadd",
        &[
            "VADD <vector> VALUES 2 <int> <count> <member> NOQUANT",
            "VADD <vector> VALUES 2 <count> <int> <member> NOQUANT SETATTR <value>",
            "VADD <str> VALUES 2 1 0 <member>",
            "VCARD <vector>",
            "VDIM <vector>",
            "VEMB <vector> <member>",
            "VISMEMBER <vector> <member>",
            "VREM <vector> <member>",
            "VSETATTR <vector> <member> <value>",
            "VGETATTR <vector> <member>",
            "%VSIM <vector> VALUES 2 1 0.5 WITHSCORES COUNT 1000 TRUTH",
        ],
    ),
    // Valkey 8.1
    (
        "commandlog|get",
        &[
            "SET <str> <value> IFEQ <int>",
            "SET <num> <int> IFEQ <int> GET",
            "SET <str> <value> IFEQ <word> EX <long>",
            "SET <str> <value> IFEQ <word> NX",
            "CLIENT CAPA redirect",
            "SCRIPT SHOW e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
        ],
    ),
];

/// Templates and names that are not generated for some servers: a command that just these have, the reason, and what.
pub const LEFT_OUT_ON_SERVERS: &[(&str, &str, &[&str])] = &[(
    "commandlog|get",
    "Valkey has them without a cluster as well; the proxy has them as Redis does, before either",
    &["readonly", "readwrite"],
)];
