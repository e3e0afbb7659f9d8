//! From text to [`Config`]: each value alone first, then all of them together.
//!
//! It reads no file and no environment; host names of listeners are resolved here, once.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{
    Config, Conflict, Error, Forming, LEAST_SILENT_INTERVALS, LogFormat, MAX_MEMBERS,
    MAX_NAME_BYTES, MAX_PARTITIONS, MAX_TOKENS, MIN_GOSSIP_INTERVAL, MIN_REAP_INTERVAL, Member,
    Salvage, Settings,
};

/// As long as a night and a day: a machine that is being repaired comes back.
const DOWN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Most runtime threads: beyond this a typing mistake is likelier than a machine.
const MAX_WORKERS: usize = 1024;

/// Reads every flag and checks that they fit together.
pub(super) fn config(settings: &Settings) -> Result<Config, Error> {
    let node_id = read(settings, "node-id", name)?.unwrap_or_else(|| "n1".to_owned());
    let listen =
        read(settings, "listen", address)?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7070)));
    let peer_listen =
        read(settings, "peer-listen", address)?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7170)));
    let data_dir = read(settings, "data-dir", folder)?
        .unwrap_or_else(|| PathBuf::from("sibyl-data").join(&node_id));
    let forming = forming(settings, &node_id, peer_listen)?;
    let zone = zone(read(settings, "zone", name)?, &forming, &node_id)?;
    let peer_advertise = peer_advertise(
        read(settings, "peer-advertise", host_and_port)?,
        &forming,
        &node_id,
        peer_listen,
    )?;
    let advertise = advertise(read(settings, "advertise", url)?, listen, &peer_advertise)?;
    let config = Config {
        listen,
        admin_listen: read(settings, "admin-listen", address)?,
        peer_listen,
        data_dir,
        forming,
        zone,
        advertise,
        peer_advertise,
        tokens: read(settings, "tokens", tokens)?.unwrap_or(64),
        partitions: read(settings, "partitions", partitions)?.unwrap_or(256),
        gossip_interval: read(settings, "gossip-interval", gossip_interval)?
            .unwrap_or(Duration::from_secs(5)),
        suspect_after: read(settings, "suspect-after", time)?.unwrap_or(Duration::from_secs(15)),
        down_after: read(settings, "down-after", time)?.unwrap_or(DOWN_AFTER),
        allow_cuts: read(settings, "allow-cuts", switch)?.unwrap_or(false),
        insecure: read(settings, "insecure", switch)?.unwrap_or(false),
        otlp_endpoint: read(settings, "otlp-endpoint", url)?,
        trace_ratio: read(settings, "trace-ratio", share)?.unwrap_or(1.0),
        reap_interval: read(settings, "reap-interval", reap_interval)?
            .unwrap_or(Some(Duration::from_secs(60))),
        salvage: read(settings, "salvage", salvage)?.unwrap_or(Salvage::Judged),
        yield_to: read(settings, "yield", host_and_port)?,
        workers: read(settings, "workers", workers)?,
        hint_quota_bytes: read(settings, "hint-quota-bytes", bytes)?,
        max_requests: read(settings, "max-requests", requests)?,
        low_water_bytes: read(settings, "low-water-bytes", bytes)?,
        anti_entropy: read(settings, "anti-entropy", active)?.unwrap_or(true),
        log: read(settings, "log", text)?.unwrap_or_else(|| "info".to_owned()),
        log_format: read(settings, "log-format", log_format)?,
        node_id,
    };
    check_listeners(&config)?;
    check_times(&config)?;
    Ok(config)
}

fn read<T>(
    settings: &Settings,
    name: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    let Some(value) = settings.get(name) else {
        return Ok(None);
    };
    parse(value).map(Some).map_err(|reason| Error::Value {
        place: settings.place(name),
        value: value.to_owned(),
        reason,
    })
}

fn check_listeners(config: &Config) -> Result<(), Conflict> {
    let mut listeners = vec![
        ("listen", config.listen),
        ("peer-listen", config.peer_listen),
    ];
    listeners.extend(config.admin_listen.map(|address| ("admin-listen", address)));
    for (index, &(flag, address)) in listeners.iter().enumerate() {
        let taken = listeners[..index]
            .iter()
            .find(|(_, other)| *other == address && address.port() != 0);
        if let Some(&(first, _)) = taken {
            return Err(Conflict::SameAddress {
                first,
                second: flag,
                address,
            });
        }
        if address.ip().is_loopback() {
            continue;
        }
        if config.allow_cuts {
            return Err(Conflict::CutsOnNetwork { address });
        }
        if !config.insecure {
            return Err(Conflict::Exposed { flag, address });
        }
    }
    Ok(())
}

fn check_times(config: &Config) -> Result<(), Conflict> {
    let (gossip_interval, suspect_after) = (config.gossip_interval, config.suspect_after);
    if suspect_after < gossip_interval * LEAST_SILENT_INTERVALS {
        return Err(Conflict::SuspectTooSoon {
            suspect_after,
            gossip_interval,
        });
    }
    let down_after = config.down_after;
    if !down_after.is_zero() && down_after < suspect_after {
        return Err(Conflict::DownTooSoon {
            down_after,
            suspect_after,
        });
    }
    Ok(())
}

fn forming(settings: &Settings, node_id: &str, peer_listen: SocketAddr) -> Result<Forming, Error> {
    let cluster_id = read(settings, "cluster-id", name)?;
    let spare = read(settings, "spare", switch)?.unwrap_or(false);
    let addresses = read(settings, "join", addresses)?;
    let members = read(settings, "members", members)?;
    let members = match (addresses, members) {
        (Some(_), Some(_)) => return Err(Conflict::JoinAndMembers.into()),
        (Some(addresses), None) => {
            check_join(&addresses, peer_listen)?;
            return Ok(Forming::Join {
                cluster_id,
                addresses,
                spare,
            });
        }
        (None, _) if spare => return Err(Conflict::SpareAlone.into()),
        (None, None) => return Ok(Forming::Alone { cluster_id }),
        (None, Some(members)) => members,
    };
    let cluster_id = cluster_id.ok_or(Conflict::NoClusterId)?;
    if members.len() > MAX_MEMBERS {
        return Err(Conflict::TooMany {
            count: members.len(),
        }
        .into());
    }
    for (index, member) in members.iter().enumerate() {
        let before = &members[..index];
        if before.iter().any(|other| other.node_id == member.node_id) {
            return Err(Conflict::Twice {
                what: member.node_id.clone(),
            }
            .into());
        }
        if before.iter().any(|other| other.address == member.address) {
            return Err(Conflict::Twice {
                what: member.address.clone(),
            }
            .into());
        }
    }
    if !members.iter().any(|member| member.node_id == node_id) {
        let listed: Vec<&str> = members
            .iter()
            .map(|member| member.node_id.as_str())
            .collect();
        return Err(Conflict::NotListed {
            node_id: node_id.to_owned(),
            listed: listed.join(", "),
        }
        .into());
    }
    if peer_listen.port() == 0 && members.len() > 1 {
        return Err(Conflict::ChosenPort {
            address: peer_listen,
        }
        .into());
    }
    Ok(Forming::Members {
        cluster_id,
        members,
    })
}

fn check_join(addresses: &[String], peer_listen: SocketAddr) -> Result<(), Conflict> {
    let count = addresses.len();
    let own = peer_listen.to_string();
    if count > MAX_MEMBERS {
        Err(Conflict::TooManyAddresses { count })
    } else if peer_listen.port() == 0 {
        Err(Conflict::ChosenPort {
            address: peer_listen,
        })
    } else if let Some(address) = addresses.iter().find(|address| **address == own).cloned() {
        Err(Conflict::JoinsItself { address })
    } else {
        Ok(())
    }
}

fn own_entry<'a>(forming: &'a Forming, node_id: &str) -> Option<&'a Member> {
    match forming {
        Forming::Alone { .. } | Forming::Join { .. } => None,
        Forming::Members { members, .. } => members.iter().find(|member| member.node_id == node_id),
    }
}

fn zone(
    zone: Option<String>,
    forming: &Forming,
    node_id: &str,
) -> Result<Option<String>, Conflict> {
    let listed = own_entry(forming, node_id).map(|member| member.zone.clone());
    match (zone, listed) {
        (zone, None) => Ok(zone),
        (None, Some(listed)) => Ok(listed),
        (Some(zone), Some(listed)) if listed.as_ref() == Some(&zone) => Ok(listed),
        (Some(zone), Some(listed)) => Err(Conflict::Zone {
            zone,
            listed: listed.unwrap_or_else(|| "no zone".to_owned()),
        }),
    }
}

fn peer_advertise(
    given: Option<String>,
    forming: &Forming,
    node_id: &str,
    listen: SocketAddr,
) -> Result<String, Conflict> {
    if let Some(address) =
        given.or_else(|| own_entry(forming, node_id).map(|member| member.address.clone()))
    {
        return Ok(address);
    }
    if matches!(forming, Forming::Join { .. }) && listen.ip().is_unspecified() {
        return Err(Conflict::NotAdvertised {
            listen: "peer-listen",
            address: listen,
            advertise: "peer-advertise",
        });
    }
    // A cluster of one has nobody to tell, so a wildcard does no harm there.
    Ok(listen.to_string())
}

fn advertise(
    given: Option<String>,
    listen: SocketAddr,
    peer_advertise: &str,
) -> Result<String, Conflict> {
    if let Some(url) = given {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    if !listen.ip().is_unspecified() {
        return Ok(format!("http://{listen}"));
    }
    let host = peer_advertise
        .rsplit_once(':')
        .map_or(peer_advertise, |(host, _)| host);
    if matches!(host, "0.0.0.0" | "[::]") {
        return Err(Conflict::NotAdvertised {
            listen: "listen",
            address: listen,
            advertise: "advertise",
        });
    }
    Ok(format!("http://{host}:{}", listen.port()))
}

fn members(value: &str) -> Result<Vec<Member>, String> {
    let mut members: Vec<Member> = value
        .split(',')
        .map(str::trim)
        .map(member)
        .collect::<Result<_, _>>()?;
    members.sort();
    Ok(members)
}

fn addresses(value: &str) -> Result<Vec<String>, String> {
    value
        .split(',')
        .map(|address| member_address(address.trim()))
        .collect()
}

/// A port of 0 is nobody's.
fn member_address(value: &str) -> Result<String, String> {
    let address = host_and_port(value)?;
    match address.rsplit_once(':') {
        Some((_, "0")) => Err("expected the port of a member".to_owned()),
        _ => Ok(address),
    }
}

fn member(entry: &str) -> Result<Member, String> {
    let (id, rest) = entry
        .split_once('=')
        .ok_or_else(|| format!("{entry:?} is not ID=HOST:PORT, for example n1=127.0.0.1:7170"))?;
    let (address, zone) = match rest.split_once('/') {
        Some((address, zone)) => (address, Some(name(zone)?)),
        None => (rest, None),
    };
    Ok(Member {
        node_id: name(id)?,
        address: host_and_port(address)?,
        zone,
    })
}

fn name(value: &str) -> Result<String, String> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if value.is_empty() || value.len() > MAX_NAME_BYTES || !value.bytes().all(allowed) {
        return Err(format!("a name is 1 to {MAX_NAME_BYTES} of a-z 0-9 . _ -"));
    }
    Ok(value.to_owned())
}

fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

fn folder(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        Err("expected a folder".to_owned())
    } else {
        Ok(PathBuf::from(value))
    }
}

/// The address of a listener. A host name must resolve now; its first address is taken.
fn address(value: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = value.parse() {
        return Ok(address);
    }
    host_and_port(value)?;
    let mut found = value
        .to_socket_addrs()
        .map_err(|error| format!("the host name does not resolve: {error}"))?;
    found
        .next()
        .ok_or_else(|| "the host name has no address".to_owned())
}

/// The address of another node: a host name may resolve later, and to something else after a restart.
fn host_and_port(value: &str) -> Result<String, String> {
    let wrong = || "expected HOST:PORT, for example 127.0.0.1:7170 or [::1]:7170".to_owned();
    let (host, port) = value.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty()
        || port == 0 && value.parse::<SocketAddr>().is_err()
        || host.contains(':') && !bracketed
    {
        return Err(wrong());
    }
    Ok(value.to_owned())
}

fn url(value: &str) -> Result<String, String> {
    let rest = value
        .strip_prefix("http://")
        .or_else(|| value.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(value.to_owned()),
        _ => Err("expected a URL that starts with http:// or https://".to_owned()),
    }
}

fn number<T: FromStr + PartialOrd + Display>(value: &str, least: T, most: T) -> Result<T, String> {
    match value.parse() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

fn tokens(value: &str) -> Result<u32, String> {
    number(value, 1, MAX_TOKENS)
}

/// As many as connections: each has one request under way.
fn requests(value: &str) -> Result<usize, String> {
    number(value, 1, 4096)
}

fn partitions(value: &str) -> Result<u32, String> {
    let count: u32 = number(value, 1, MAX_PARTITIONS)?;
    if count.is_power_of_two() {
        return Ok(count);
    }
    Err(format!(
        "must be a power of two, for example {}",
        count.next_power_of_two().min(MAX_PARTITIONS)
    ))
}

fn bytes(value: &str) -> Result<u64, String> {
    let wrong = || "a number of bytes, for example 1073741824".to_owned();
    value.parse().map_err(|_| wrong())
}

fn workers(value: &str) -> Result<usize, String> {
    number(value, 1, MAX_WORKERS)
}

fn share(value: &str) -> Result<f64, String> {
    number(value, 0.0, 1.0)
}

fn time(value: &str) -> Result<Duration, String> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(value)
        .map_err(|_| "expected a time with its unit, for example 500ms, 5s or 24h".into())
}

fn salvage(value: &str) -> Result<Salvage, String> {
    match value {
        "judged" => Ok(Salvage::Judged),
        "all" => Ok(Salvage::All),
        "nothing" => Ok(Salvage::Nothing),
        _ => Err("expected judged, all or nothing".into()),
    }
}

/// `None`: off.
fn reap_interval(value: &str) -> Result<Option<Duration>, String> {
    let interval = time(value)?;
    if interval.is_zero() {
        return Ok(None);
    }
    if interval < MIN_REAP_INTERVAL {
        return Err(format!(
            "at least {}, or 0 to turn reaping off",
            humantime::format_duration(MIN_REAP_INTERVAL)
        ));
    }
    Ok(Some(interval))
}

fn gossip_interval(value: &str) -> Result<Duration, String> {
    let interval = time(value)?;
    if interval < MIN_GOSSIP_INTERVAL {
        return Err(format!(
            "at least {}",
            humantime::format_duration(MIN_GOSSIP_INTERVAL)
        ));
    }
    Ok(interval)
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

fn active(value: &str) -> Result<bool, String> {
    match value {
        "active" => Ok(true),
        "passive" => Ok(false),
        _ => Err("expected active or passive".to_owned()),
    }
}

fn log_format(value: &str) -> Result<LogFormat, String> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected text or json".to_owned()),
    }
}
