//! The command line as a whole, without a node: help everywhere, exit codes, and how failures read.

use std::ffi::OsString;

use clap::CommandFactory;

use super::client::{Client, Error, Parts, Problem, key_path};
use super::failure::{FAILED, Failure, USAGE, problem_text};
use super::{Cli, output, run_with};

fn exit_code(line: &str) -> u8 {
    run_with(line.split_whitespace().map(OsString::from))
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_an_example() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let children: Vec<_> = command
            .get_subcommands()
            .filter(|child| child.get_name() != "help")
            .collect();
        assert!(
            command.get_about().is_some(),
            "{path} says nothing of itself"
        );
        if children.is_empty() {
            let example = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                example.contains("Example") && example.contains("sibyl "),
                "{path} has no example"
            );
        }
        for argument in command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
        {
            assert!(
                argument.get_help().is_some(),
                "{path} --{} has no help",
                argument.get_id()
            );
        }
        children.iter().for_each(|child| visit(child, &path));
    }
    visit(&Cli::command(), "");
}

#[test]
fn commands_that_print_data_print_it_as_json_too() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let children: Vec<_> = command
            .get_subcommands()
            .filter(|child| child.get_name() != "help")
            .collect();
        // They run, or write files: there is nothing to print.
        let silent = ["serve", "dev", "baseline", "new"].contains(&command.get_name());
        if children.is_empty() && !silent {
            assert!(
                command
                    .get_arguments()
                    .any(|argument| argument.get_id() == "output"),
                "{path}"
            );
        }
        children.iter().for_each(|child| visit(child, &path));
    }
    visit(&Cli::command(), "");
}

#[test]
fn usage_errors_end_with_2() {
    for line in [
        "sibyl nonsense",
        "sibyl get",
        "sibyl get key --url ftp://x",
        "sibyl delete key",
        "sibyl put key value --attribute nameless --url http://127.0.0.1:9",
        "sibyl serve --listen 0.0.0.0:7070",
        "sibyl serve --join 127.0.0.1:7170",
        "sibyl serve --config /no/such/file.toml",
        "sibyl dev --port 65530",
        "sibyl bench --connections 0",
        "sibyl bench --local --url http://127.0.0.1:1",
    ] {
        assert_eq!(exit_code(line), USAGE, "{line}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    for line in [
        "sibyl --help",
        "sibyl --version",
        "sibyl serve --help",
        "sibyl help resolver bind",
    ] {
        assert_eq!(exit_code(line), 0, "{line}");
    }
}

#[test]
fn a_node_that_is_not_there_ends_with_1() {
    // The port is bound and not listened on by anyone else while the test runs.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", held.local_addr().unwrap().port());
    for command in [
        "get k",
        "put k v",
        "list",
        "explain k",
        "bucket list",
        "cluster status",
        "health",
    ] {
        assert_eq!(
            exit_code(&format!("sibyl {command} --url {url}")),
            FAILED,
            "{command}"
        );
    }
}

#[test]
fn problems_read_as_title_detail_code_and_trace() {
    let more = serde_json::Map::from_iter([
        ("outcome".to_owned(), "unknown".into()),
        ("acks".to_owned(), 1.into()),
    ]);
    let problem = Problem {
        status: 503,
        title: "quorum not reached".to_owned(),
        code: "no_quorum".to_owned(),
        detail: "1 of 2 copies".to_owned(),
        trace_id: "4bf9".to_owned(),
        more,
    };
    let text = problem_text(&problem);
    for part in [
        "quorum not reached (503)",
        "1 of 2 copies",
        "code: no_quorum",
        "trace id: 4bf9",
        "outcome: unknown",
    ] {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn keys_are_encoded_so_that_urls_keep_them() {
    let check = |key: &str, encoded: &str| {
        assert_eq!(
            key_path("b", key).unwrap(),
            format!("/v1/buckets/b/keys/{encoded}")
        );
    };
    check("plain-key_1.~", "plain-key_1.~");
    check("a/../b//c", "a%2F..%2Fb%2F%2Fc");
    check("ü ?#%", "%C3%BC%20%3F%23%25");
    check("\0", "%00");
    for impossible in ["", ".", ".."] {
        assert!(
            matches!(key_path("b", impossible), Err(Error::Key { .. })),
            "{impossible:?}"
        );
    }
}

#[test]
fn only_base_urls_of_nodes_are_taken() {
    let time = std::time::Duration::from_secs(1);
    assert!(Client::new("http://127.0.0.1:1/", time).is_ok());
    for wrong in [
        "127.0.0.1:7070",
        "https://x",
        "http://x/path",
        "http://x?q=1",
        "",
    ] {
        assert!(
            matches!(Client::new(wrong, time), Err(Error::Url { .. })),
            "{wrong:?}"
        );
    }
}

#[test]
fn values_cannot_move_the_cursor() {
    assert_eq!(output::printable("a\u{1b}[2Jb\tc\n"), "a\\u{1b}[2Jb\tc\n");
    assert_eq!(
        output::bytes_for_people(&[0xff, 0x00]),
        "base64:/wA= (2 bytes)"
    );
    assert_eq!(
        output::cell(&serde_json::json!({ "base64": "/wA=" })),
        "base64:/wA="
    );
}

#[test]
fn byte_strings_in_json_round_trip() {
    for bytes in [&b"text"[..], &[0xff, 0xfe], b""] {
        assert_eq!(
            output::bytes_from_json(&output::bytes_to_json(bytes)).as_deref(),
            Some(bytes)
        );
    }
    assert_eq!(output::bytes_from_json(&serde_json::json!(7)), None);
    assert_eq!(
        output::bytes_from_json(&serde_json::json!({ "base64": "?" })),
        None
    );
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    assert_eq!(Failure::ReaderGone.exit_code(), 0);
}

#[test]
fn requests_carry_query_headers_and_body() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let answering = std::thread::spawn(move || answer_one(&server));
    let client = Client::new(&url, std::time::Duration::from_secs(10)).unwrap();
    let parts = Parts::default()
        .query("prefix", "a b&c")
        .header("sibyl-context", "ctx")
        .body("value");
    let refused = client.put("/v1/x", parts).unwrap_err();
    let request = answering.join().unwrap();
    for part in [
        "PUT /v1/x?prefix=a%20b%26c HTTP/1.1",
        "sibyl-context: ctx",
        "\r\n\r\nvalue",
    ] {
        assert!(request.contains(part), "{request:?} does not have {part:?}");
    }
    let Error::Refused(problem) = refused else {
        panic!("{refused}")
    };
    assert_eq!(
        (
            problem.status,
            problem.code.as_str(),
            problem.trace_id.as_str()
        ),
        (409, "sibling_cap", "t1")
    );
    assert_eq!(problem.more.len(), 1);
}

/// Reads one request and answers it with a problem document.
fn answer_one(server: &std::net::TcpListener) -> String {
    use std::io::{Read, Write};
    let (mut stream, _) = server.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"value") {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the request broke off");
        request.extend_from_slice(&chunk[..count]);
    }
    let body = r#"{"type":"about:blank","title":"too many","status":409,"code":"sibling_cap","detail":"d","limit":100}"#;
    let head = "HTTP/1.1 409 Conflict\r\nsibyl-trace-id: t1\r\nconnection: close\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    String::from_utf8(request).unwrap()
}
