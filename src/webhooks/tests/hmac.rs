//! HMAC senders by configuration alone.

use super::support::{NOW, code, post, source, try_source};

#[test]
fn slack_is_a_configuration() {
    // Slack's published example.
    let table = "kind = \"hmac\"\ncontent_types = [\"*/*\"]\nhmac = { header = \"X-Slack-Signature\", prefix = \"v0=\", \
                 timestamp_header = \"X-Slack-Request-Timestamp\", signed = \"v0:{timestamp}:{body}\" }";
    let slack = source(table, "8f742231b10e8888abcd99yyyzzz85a5");
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F\
                96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let at = 1_531_420_618;
    let request = |off: i64| {
        post(body)
            .header(
                "x-slack-signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            )
            .header("x-slack-request-timestamp", &at.to_string())
            .at(at + off)
    };
    assert_eq!(request(0).verify(&slack).unwrap().signed_at().unwrap().as_second(), at);
    for (off, expected) in [(300, "ok"), (-300, "ok"), (301, "stale"), (-301, "stale")] {
        assert_eq!(code(request(off).verify(&slack)), expected, "{off}");
    }
    assert_eq!(code(request(0).header("x-slack-request-timestamp", "1").verify(&slack)), "bad_signature");
}

#[test]
fn every_algorithm_and_encoding_verifies_what_it_signs() {
    for algorithm in ["sha256", "sha512", "sha1"] {
        for encoding in ["hex", "base64"] {
            for (key_encoding, secret) in [("utf8", "sécret"), ("base64", "c2VjcmV0"), ("hex", "00Ff10")] {
                let table = format!(
                    "kind = \"hmac\"\nhmac = {{ header = \"x-sig\", algorithm = \"{algorithm}\", \
                     encoding = \"{encoding}\", key_encoding = \"{key_encoding}\" }}"
                );
                let sender = source(&table, secret);
                let good = post("body").signed_by(&sender);
                assert_eq!(code(good.verify(&sender)), "ok", "{table}");
                let moved = post("Body").header("x-sig", good.0.headers["x-sig"].to_str().unwrap());
                assert_eq!(code(moved.verify(&sender)), "bad_signature", "{table}");
            }
        }
    }
}

#[test]
fn known_macs_match() {
    // RFC 4231 and RFC 2202, test case 2.
    let cases = [
        ("sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (
            "sha512",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ];
    for (algorithm, mac) in cases {
        let table = format!("kind = \"hmac\"\nhmac = {{ header = \"x-sig\", algorithm = \"{algorithm}\" }}");
        let sender = source(&table, "Jefe");
        let with =
            |value: &str| code(post("what do ya want for nothing?").header("x-sig", value).verify(&sender));
        assert_eq!(with(mac), "ok", "{algorithm}");
        assert_eq!(with(&mac.to_uppercase()), "ok");
        assert_eq!(with(&mac[2..]), "bad_signature");
        assert_eq!(with(&format!("{mac}00")), "bad_signature");
        assert_eq!(with(""), "bad_signature");
    }
}

#[test]
fn the_prefix_is_part_of_the_form() {
    let sender = source("kind = \"hmac\"\nhmac = { header = \"x-sig\", prefix = \"sha256=\" }", "k");
    let good = post("b").signed_by(&sender).0.headers["x-sig"].to_str().unwrap().to_owned();
    assert!(good.starts_with("sha256="));
    for wrong in [good.replace("sha256=", ""), good.replace("sha256=", "SHA256="), format!("x{good}")] {
        assert_eq!(code(post("b").header("x-sig", &wrong).verify(&sender)), "bad_signature", "{wrong}");
    }
    assert_eq!(code(post("b").verify(&sender)), "not_signed");
    assert_eq!(
        code(post("b").header("x-sig", &good).header("x-sig", &good).verify(&sender)),
        "bad_signature"
    );
}

#[test]
fn a_missing_time_is_not_signed() {
    let table = "kind = \"hmac\"\nhmac = { header = \"x-sig\", timestamp_header = \"x-time\", signed = \"{timestamp}.{body}\" }";
    let sender = source(table, "k");
    let signed = post("b").signed_by(&sender);
    let alone = post("b").header("x-sig", signed.0.headers["x-sig"].to_str().unwrap());
    assert_eq!(code(alone.verify(&sender)), "not_signed");
    let wordy = alone.header("x-time", &format!("{NOW}s"));
    assert_eq!(code(wordy.verify(&sender)), "bad_signature");
}

#[test]
fn keys_that_do_not_decode_are_named_without_their_text() {
    for (encoding, secret) in [("base64", "not/base64!"), ("hex", "xyzzyx"), ("hex", "abc")] {
        let table =
            format!("kind = \"hmac\"\nhmac = {{ header = \"x-sig\", key_encoding = \"{encoding}\" }}");
        let errors = try_source(&table, &[("default", secret)]).unwrap_err();
        let told = errors.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains("WEBHOOK_SECRET_SENDER") && !told.contains(secret), "{told}");
    }
}
