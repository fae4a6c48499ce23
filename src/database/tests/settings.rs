use std::time::Duration;

use secrecy::SecretString;

use crate::database::{Database, DatabaseSettings};

fn mistakes(url: &str) -> Vec<String> {
    let settings = DatabaseSettings::new(SecretString::from(url));
    settings.check().iter().map(ToString::to_string).collect()
}

#[test]
fn tls_is_required_except_to_this_machine() {
    for url in [
        "postgres://app:hush@db.example.com/app?sslmode=disable",
        "postgres://app:hush@10.0.0.4/app?sslmode=disable",
        "postgres://app:hush@127.0.0.1,db.example.com/app?sslmode=disable",
        "postgres://app:hush@localhost/app?sslmode=disable&hostaddr=10.0.0.4",
        "postgres://app:hush@localhost.example.com/app?sslmode=disable",
    ] {
        let found = mistakes(url);
        assert_eq!(found.len(), 1, "{url}: {found:?}");
        assert!(found[0].starts_with("DATABASE_URL has sslmode=disable"), "{found:?}");
        assert!(!found[0].contains("hush"), "{found:?}");
    }
    for url in [
        "postgres://app@127.0.0.1/app?sslmode=disable",
        "postgres://app@127.8.8.8/app",
        "postgres://app@localhost/app?sslmode=disable",
        "postgres://app@[::1]:5433/app?sslmode=disable",
        "postgres://app@%2Fvar%2Frun%2Fpostgresql/app?sslmode=disable",
        "postgres://app@db.example.com/app?sslmode=verify-full",
        "postgres://app@db.example.com/app",
    ] {
        assert_eq!(mistakes(url), Vec::<String>::new(), "{url}");
    }
}

#[test]
fn every_mistake_is_named_at_once_and_no_secret_is() {
    let mut settings = DatabaseSettings::new(SecretString::from("mysql://app:hush@db/app"));
    settings.direct_url = Some(SecretString::from("postgres://:hush@127.0.0.1/app?sslrootcert=/x"));
    settings.pool_size = 16;
    settings.pool_wait = Duration::ZERO;
    let found: Vec<String> = settings.check().iter().map(ToString::to_string).collect();
    let variables: Vec<&str> = found.iter().filter_map(|mistake| mistake.split(' ').next()).collect();
    assert_eq!(variables, ["DATABASE_URL", "DATABASE_DIRECT_URL", "DB_POOL_SIZE", "DB_POOL_WAIT"]);
    assert!(found[1].contains("DB_CA_FILE"), "{found:?}");
    assert!(!format!("{found:?} {settings:?}").contains("hush"), "{found:?} {settings:?}");
    let error = Database::new(settings, None).expect_err("refused");
    assert_eq!((error.code(), error.is_outage()), ("database_settings", false));
    // As commands print an error, with every cause.
    let said = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(said.matches("DATABASE_URL").count(), 1, "{said}");
}

#[test]
fn messages_name_the_server_without_the_user() {
    let url = "postgres://app:hush@127.0.0.1:7000,localhost:7001/app";
    let database = Database::new(DatabaseSettings::new(SecretString::from(url)), None);
    assert_eq!(database.expect("settings").server(), "127.0.0.1:7000,localhost:7001/app");
}
