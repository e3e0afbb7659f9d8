//! Tables for layering, reading and checking of settings.

use std::path::Path;

use super::{
    Config, Error, FLAGS, Forming, Kind, Layer, Settings, environment_name, file_name, flags,
};

/// Settings given on the command line.
fn settings(flags: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in flags {
        let flag = flags::find(name).unwrap_or_else(|| panic!("no flag {name}"));
        settings.set(flag, Layer::Flag, (*value).to_owned());
    }
    settings
}

fn accept(flags: &[(&str, &str)]) -> Config {
    Config::resolve(&settings(flags)).unwrap_or_else(|error| panic!("{flags:?}: {error}"))
}

/// The refusal must hold every one of `parts`.
fn refuse(flags: &[(&str, &str)], parts: &[&str]) {
    let message = match Config::resolve(&settings(flags)) {
        Ok(config) => panic!("{flags:?} was accepted: {config:?}"),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(
            message.contains(part),
            "{flags:?}: {message:?} does not say {part:?}"
        );
    }
}

const TRIO: (&str, &str) = (
    "members",
    "n1=127.0.0.1:7170,n2=127.0.0.1:7171,n3=127.0.0.1:7172",
);
const JOIN: (&str, &str) = ("join", "127.0.0.1:7180, b:2");
const SHOP: (&str, &str) = ("cluster-id", "shop");

#[test]
fn no_flags_make_a_cluster_of_one_on_loopback() {
    let config = accept(&[]);
    assert_eq!(config.node_id, "n1");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(config.advertise, "http://127.0.0.1:7070");
    assert_eq!(config.peer_advertise, "127.0.0.1:7170");
    assert_eq!(config.data_dir, Path::new("sibyl-data/n1"));
    assert_eq!(config.forming, Forming::Alone { cluster_id: None });
}

#[test]
fn defaults_shown_in_help_are_the_defaults_that_apply() {
    let shown: Vec<(&str, &str)> = FLAGS
        .iter()
        .filter(|flag| !flag.default.is_empty() && !["data-dir", "workers"].contains(&flag.name))
        .map(|flag| (flag.name, flag.default))
        .collect();
    assert_eq!(accept(&shown), accept(&[]));
}

#[test]
fn members_are_the_same_in_any_order() {
    let config = accept(&[
        SHOP,
        ("members", "n3=c:3/z3,n1=a:1/z1, n2=b:2"),
        ("node-id", "n3"),
    ]);
    let Forming::Members {
        cluster_id,
        members,
    } = config.forming
    else {
        panic!("alone")
    };
    let shown: Vec<String> = members
        .iter()
        .map(|m| format!("{} {} {:?}", m.node_id, m.address, m.zone))
        .collect();
    assert_eq!(cluster_id, "shop");
    assert_eq!(
        shown,
        ["n1 a:1 Some(\"z1\")", "n2 b:2 None", "n3 c:3 Some(\"z3\")"]
    );
    assert_eq!(
        (config.peer_advertise.as_str(), config.zone.as_deref()),
        ("c:3", Some("z3"))
    );
}

#[test]
fn a_wildcard_listener_is_told_by_the_name_of_its_member_entry() {
    let container = [
        SHOP,
        ("members", "n1=sibyl-1:7170,n2=sibyl-2:7170"),
        ("insecure", "true"),
    ];
    let config = accept(
        &[
            &container[..],
            &[("listen", "0.0.0.0:7070"), ("peer-listen", "0.0.0.0:7170")],
        ]
        .concat(),
    );
    assert_eq!(config.advertise, "http://sibyl-1:7070");
}

#[test]
fn bad_values_are_refused_with_what_to_do() {
    let table: &[(&str, &str, &str)] = &[
        ("node-id", "N1", "a-z 0-9"),
        ("node-id", "", "1 to 64"),
        ("listen", "7070", "HOST:PORT"),
        ("listen", "127.0.0.1:99999", "HOST:PORT"),
        ("listen", "no.such.host.invalid:7070", "does not resolve"),
        ("peer-advertise", "::1:7170", "[::1]:7170"),
        ("members", "n1", "n1=127.0.0.1:7170"),
        ("members", "n1=127.0.0.1:7170,", "is not ID=HOST:PORT"),
        ("join", "n1", "HOST:PORT"),
        ("join", "127.0.0.1:0", "the port of a member"),
        ("spare", "maybe", "true or false"),
        ("tokens", "0", "from 1 to 1024"),
        ("partitions", "100", "for example 128"),
        ("partitions", "131072", "to 65536"),
        ("gossip-interval", "5", "with its unit"),
        ("gossip-interval", "1ms", "at least 100ms"),
        ("otlp-endpoint", "127.0.0.1:4317", "http://"),
        ("trace-ratio", "1.5", "from 0 to 1"),
        ("trace-ratio", "NaN", "from 0 to 1"),
        ("workers", "0", "from 1"),
        ("hint-quota-bytes", "10%", "a number of bytes"),
        ("anti-entropy", "off", "active or passive"),
        ("log-format", "xml", "text or json"),
        ("allow-cuts", "maybe", "true or false"),
    ];
    for (flag, value, reason) in table {
        refuse(&[(flag, value)], &[&format!("--{flag}"), value, reason]);
    }
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    refuse(
        &[("listen", "0.0.0.0:7070")],
        &["--listen", "not a loopback", "--insecure"],
    );
    refuse(
        &[("peer-listen", "192.0.2.1:7170")],
        &["--peer-listen", "--insecure"],
    );
    refuse(
        &[("admin-listen", "0.0.0.0:9")],
        &["--admin-listen", "--insecure"],
    );
    refuse(&[SHOP, TRIO, JOIN], &["--members", "--join", "one of them"]);
    refuse(&[("spare", "true")], &["--spare", "--join"]);
    refuse(
        &[JOIN, ("peer-listen", "127.0.0.1:0")],
        &["--peer-listen", "give a port"],
    );
    refuse(
        &[("join", "127.0.0.1:7170")],
        &["--join 127.0.0.1:7170", "own --peer-listen"],
    );
    refuse(
        &[JOIN, ("peer-listen", "0.0.0.0:7170"), ("insecure", "true")],
        &["--peer-listen 0.0.0.0:7170", "--peer-advertise"],
    );
    refuse(&[TRIO], &["--cluster-id"]);
    refuse(&[TRIO, SHOP, ("node-id", "n9")], &["n9", "n1, n2, n3"]);
    refuse(&[SHOP, ("members", "n1=a:1,n1=b:1")], &["n1 twice"]);
    refuse(&[SHOP, ("members", "n1=a:1,n2=a:1")], &["a:1 twice"]);
    refuse(
        &[SHOP, ("members", "n1=a:1/x"), ("zone", "y")],
        &["--zone y", "says x"],
    );
    refuse(
        &[SHOP, TRIO, ("peer-listen", "127.0.0.1:0")],
        &["--peer-listen", "give a port"],
    );
    refuse(
        &[("peer-listen", "127.0.0.1:7070")],
        &["--listen and --peer-listen"],
    );
    refuse(
        &[
            ("listen", "0.0.0.0:1"),
            ("insecure", "true"),
            ("allow-cuts", "true"),
        ],
        &["--allow-cuts"],
    );
    refuse(
        &[("suspect-after", "14s")],
        &["--suspect-after 14s", "three times", "5s"],
    );
    accept(&[("suspect-after", "600ms"), ("gossip-interval", "200ms")]);
    refuse(
        &[("down-after", "14s")],
        &["--down-after 14s", "--suspect-after 15s", "0 means"],
    );
    refuse(
        &[
            ("listen", "0.0.0.0:1"),
            ("peer-listen", "0.0.0.0:2"),
            ("insecure", "true"),
        ],
        &["--listen 0.0.0.0:1", "--advertise"],
    );
    let many: Vec<String> = (0..129).map(|i| format!("n{i}=a:{}", i + 1)).collect();
    refuse(&[SHOP, ("members", &many.join(","))], &["129 nodes", "128"]);
}

#[test]
fn zero_means_only_an_operator_removes_members() {
    assert!(accept(&[("down-after", "0")]).down_after.is_zero());
    assert_eq!(accept(&[]).down_after.as_secs(), 24 * 60 * 60);
}

#[test]
fn a_node_that_joins_knows_addresses_and_perhaps_a_name() {
    let check = |flags: &[(&str, &str)], cluster_id: Option<&str>, spare: bool| {
        let expected = Forming::Join {
            cluster_id: cluster_id.map(str::to_owned),
            addresses: vec!["127.0.0.1:7180".to_owned(), "b:2".to_owned()],
            spare,
        };
        assert_eq!(accept(flags).forming, expected);
    };
    check(&[JOIN], None, false);
    check(&[JOIN, SHOP, ("spare", "true")], Some("shop"), true);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "node_id = 'f'\nlisten = '127.0.0.1:1'\npartitions = 8\nallow_cuts = true\ntrace_ratio = 0.5\n\
                cluster_id = 'shop'\nmembers = ['c=127.0.0.1:3', 'e=127.0.0.1:4']";
    let environment = [
        ("SIBYL_NODE_ID", "e"),
        ("SIBYL_LISTEN", "127.0.0.1:2"),
        ("SIBYL_TOKENS", ""),
    ];
    let mut layered = settings(&[("node-id", "c")]);
    let unknown = layered
        .add_environment(environment.map(|(name, value)| (name.to_owned(), value.to_owned())));
    layered.add_toml(Path::new("sibyl.toml"), file).unwrap();
    let config = Config::resolve(&layered).unwrap();
    assert_eq!(
        (
            config.node_id.as_str(),
            config.listen.port(),
            config.partitions
        ),
        ("c", 2, 8)
    );
    assert_eq!(
        (config.allow_cuts, config.trace_ratio, config.tokens),
        (true, 0.5, 64)
    );
    assert_eq!(config.peer_advertise, "127.0.0.1:3");
    assert!(unknown.is_empty());
}

#[test]
fn foreign_variables_are_named_and_ignored() {
    let variables = ["SIBYL_PORT", "SIBYL_URL", "SIBYL_LISTENN", "PATH"]
        .map(|name| (name.to_owned(), "x".to_owned()));
    let mut settings = Settings::default();
    assert_eq!(
        settings.add_environment(variables),
        ["SIBYL_PORT", "SIBYL_LISTENN"]
    );
    assert_eq!(settings, Settings::default());
}

#[test]
fn a_bad_file_is_refused_by_line() {
    let table = [
        ("node_id = ", "not valid TOML"),
        ("gossip_intervall = '5s'", "did you mean gossip_interval?"),
        ("colour = 'red'", "sibyl serve --help"),
        ("members = [1]", "a list of texts"),
        ("insecure = 'yes'", "true or false"),
        ("listen = 7070", "listen in sibyl.toml"),
    ];
    for (text, part) in table {
        let mut settings = Settings::default();
        let result = settings
            .add_toml(Path::new("sibyl.toml"), text)
            .and_then(|()| Config::resolve(&settings));
        let message = result.expect_err(text).to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
    let missing = Settings::default().add_file(Path::new("/no/such/sibyl.toml"));
    assert!(matches!(missing, Err(Error::File { .. })));
}

#[test]
fn every_flag_has_three_names_and_is_read() {
    for flag in FLAGS {
        assert!(environment_name(flag.name).starts_with("SIBYL_"));
        assert!(!file_name(flag.name).contains('-'));
        let nonsense = "\u{1}";
        let read = Config::resolve(&settings(&[(flag.name, nonsense)]));
        let free_text = ["log", "data-dir"].contains(&flag.name);
        assert_eq!(
            read.is_err(),
            !free_text,
            "--{} accepts anything or is never read",
            flag.name
        );
        assert!(flag.kind == Kind::Switch || !flag.help.is_empty());
    }
}
