use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use secrecy::SecretString;

use super::support::{TestDatabase, eventually};
use crate::database::migrations::{self, MigrationError, Migrations, Options, Progress, State};
use crate::database::{Database, DatabaseSettings};

const FIRST: (&str, &str) =
    ("V0001__create_people", "CREATE TABLE people (id bigint PRIMARY KEY, name text);");
const SECOND: (&str, &str) =
    ("V0002__add_age", "ALTER TABLE people ADD COLUMN age int;\nCREATE TABLE places (id bigint);");
const INDEX: (&str, &str) = (
    "V0003__index_names",
    "-- colloquy: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS people_name ON people (name);\n\
     COMMENT ON INDEX people_name IS 'one; only';\n",
);
/// Changes the schema, then sits there.
const STUCK: (&str, &str) = (
    "V0002__stuck",
    "ALTER TABLE people ADD COLUMN age int;\nSELECT pg_sleep(600);\nCREATE TABLE places ();",
);

fn known(files: &[(&str, &str)]) -> Migrations {
    Migrations::from_files(files).expect("good files")
}

fn options() -> Options {
    Options { wait: Duration::from_secs(30), ..Options::default() }
}

async fn run(database: &Database, files: &[(&str, &str)]) -> Result<migrations::Report, MigrationError> {
    migrations::run(database, &known(files), &options(), &|_| {}).await
}

async fn columns(session: &tokio_postgres::Client) -> Vec<String> {
    let sql = "SELECT table_name || '.' || column_name FROM information_schema.columns \
               WHERE table_schema = 'public' AND table_name <> 'refinery_schema_history' ORDER BY 1";
    let rows = session.query(sql, &[]).await.expect("the columns");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_runners_at_once_apply_each_migration_once() {
    let test = TestDatabase::create().await;
    let five = (0..5).map(|_| {
        let database = test.database();
        tokio::spawn(async move { run(&database, &[FIRST, SECOND, INDEX]).await.expect("a run") })
    });
    let mut applied = Vec::new();
    for runner in five.collect::<Vec<_>>() {
        let report = runner.await.expect("no panic");
        assert_eq!((report.current, report.latest), (3, 3));
        applied.extend(report.applied.into_iter().map(|done| (done.version, done.transactional)));
    }
    assert_eq!(applied, [(1, true), (2, true), (3, false)], "by one of them, in order");
    let session = test.session().await;
    let rows = session.query("SELECT version FROM refinery_schema_history ORDER BY 1", &[]).await;
    let versions: Vec<i32> = rows.expect("history").iter().map(|row| row.get(0)).collect();
    assert_eq!(versions, [1, 2, 3]);
}

#[tokio::test]
async fn a_second_run_finds_nothing_to_do_and_says_so() {
    let test = TestDatabase::create().await;
    let database = test.database();
    let files = known(&[FIRST, SECOND]);
    assert_eq!(migrations::schema_version(&database).await.expect("a version"), 0);
    assert!(migrations::is_due(&database, &files).await.expect("an answer"));

    let steps = Mutex::new(Vec::new());
    let tell = |step: &Progress| steps.lock().expect("steps").push(step.to_string());
    migrations::run(&database, &files, &options(), &tell).await.expect("a run");
    let steps = steps.into_inner().expect("steps");
    assert_eq!(steps[0], "applying V0001__create_people");
    assert!(steps[3].starts_with("applied V0002__add_age in "), "{steps:?}");

    assert!(!migrations::is_due(&database, &files).await.expect("an answer"));
    assert_eq!(migrations::schema_version(&database).await.expect("a version"), 2);
    let report = migrations::run(&database, &files, &options(), &|_| {}).await.expect("a run");
    assert!(report.applied.is_empty());
    assert_eq!(report.to_string(), "Nothing to do: the schema is at version 2.");
    let json = serde_json::to_value(&report).expect("json");
    assert_eq!(json["current"], 2);
}

#[tokio::test]
async fn check_tells_behind_up_to_date_and_newer_apart() {
    let test = TestDatabase::create().await;
    let database = test.database();
    let (old, new) = (known(&[FIRST]), known(&[FIRST, SECOND]));
    let behind = migrations::check(&database, &new).await.expect("an answer");
    assert_eq!((behind.state, behind.exit_code(), behind.pending.len()), (State::Behind, 3, 2));
    assert!(columns(&test.session().await).await.is_empty(), "a check changes nothing");

    run(&database, &[FIRST, SECOND]).await.expect("a run");
    let same = migrations::check(&database, &new).await.expect("an answer");
    assert_eq!((same.state, same.exit_code()), (State::UpToDate, 0));

    let newer = migrations::check(&database, &old).await.expect("an answer");
    assert_eq!((newer.state, newer.exit_code(), newer.unknown.as_slice()), (State::Newer, 0, &[2][..]));
    assert!(!migrations::is_due(&database, &old).await.expect("an answer"), "an old program keeps quiet");
    let error = migrations::run(&database, &old, &options(), &|_| {}).await.expect_err("refused");
    assert!(matches!(error, MigrationError::Newer { database: 2, program: 1 }), "{error}");
}

#[tokio::test]
async fn edited_renamed_and_skipped_files_are_refused() {
    let test = TestDatabase::create().await;
    let database = test.database();
    run(&database, &[FIRST, SECOND]).await.expect("a run");
    let third = ("V0003__more", "CREATE TABLE more ()");

    for first in [("V0001__create_people", "CREATE TABLE people ();"), ("V0001__create_folk", FIRST.1)] {
        let files = [first, SECOND, third];
        let error = run(&database, &files).await.expect_err("refused");
        assert!(matches!(error, MigrationError::Edited { version: 1, .. }), "{error}");
        let error = migrations::check(&database, &known(&files)).await.expect_err("refused");
        assert_eq!(error.code(), "migration_edited");
        assert!(
            migrations::is_due(&database, &known(&files)).await.expect("an answer"),
            "so that it is said"
        );
    }

    let session = test.session().await;
    session.batch_execute("DELETE FROM refinery_schema_history WHERE version = 1").await.expect("a gap");
    let error = run(&database, &[FIRST, SECOND, third]).await.expect_err("refused");
    assert!(matches!(error, MigrationError::Skipped { version: 1, .. }), "{error}");
    assert!(!columns(&session).await.iter().any(|column| column.starts_with("more")));
}

#[test]
fn files_with_gaps_twins_odd_names_or_transactions_of_their_own_are_refused() {
    let refused = |files: &[(&str, &str)], what: &str| {
        let error = Migrations::from_files(files).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&[FIRST, ("V0003__x", "SELECT 1")], "no file V0002");
    refused(&[("V0002__x", "SELECT 1")], "no file V0001");
    refused(&[FIRST, ("V1__twin", "SELECT 1")], "version of another file");
    refused(&[("V0000__x", "SELECT 1")], "version of another file");
    refused(&[("first", "SELECT 1")], "not named like");
    refused(&[("U0001__x", "SELECT 1")], "must begin with V");
    refused(&[("V0001__x", "-- nothing\n")], "holds no statement");
    refused(&[("V0001__x", "SELECT 1;\n\ncommit;")], "line 3");
    refused(&[("V0001__x", "\n-- colloquy: no-transaction\nSELECT 1")], "must be its first line");
    let body = "DO $$ BEGIN PERFORM 1; END $$; CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;";
    assert_eq!(known(&[("V0001__x", body)]).latest(), 1);
}

#[tokio::test]
async fn a_failing_migration_names_its_line_and_leaves_the_old_schema_whole() {
    let test = TestDatabase::create().await;
    let database = test.database();
    run(&database, &[FIRST]).await.expect("a run");
    let before = columns(&test.session().await).await;

    let bad =
        ("V0002__bad", "ALTER TABLE people ADD COLUMN age int;\n\n-- ü\nALTER TABLE nowhere ADD y int;\n");
    let error = run(&database, &[FIRST, bad]).await.expect_err("it fails");
    assert!(matches!(error, MigrationError::Failed { version: 2, undone: true, .. }), "{error}");
    assert!(!error.is_outage());
    let wrong_place = ("V0002__bad", "ALTER TABLE people ADD COLUMN age int;\n-- ü\nSELECT 'ü', nothing;\n");
    let error = run(&database, &[FIRST, wrong_place]).await.expect_err("it fails");
    assert!(error.to_string().contains("V0002__bad, line 3: "), "{error}");

    assert_eq!(columns(&test.session().await).await, before);
    let report = run(&database, &[FIRST, SECOND]).await.expect("a run with the corrected file");
    assert_eq!(report.current, 2);
}

#[tokio::test]
async fn a_migration_behind_a_long_lock_gives_up_soon_and_can_be_run_again() {
    let test = TestDatabase::create().await;
    let database = test.database();
    run(&database, &[FIRST]).await.expect("a run");
    let reader = test.session().await;
    reader.batch_execute("BEGIN; SELECT * FROM people").await.expect("a long reader");
    let impatient = Options { lock_timeout: Duration::from_millis(200), ..options() };
    let files = known(&[FIRST, SECOND]);
    let error = migrations::run(&database, &files, &impatient, &|_| {}).await.expect_err("locked out");
    assert!(error.is_outage() && matches!(error, MigrationError::Failed { undone: true, .. }), "{error}");
    reader.batch_execute("COMMIT").await.expect("the reader is done");
    assert_eq!(run(&database, &[FIRST, SECOND]).await.expect("a run").applied.len(), 1);
}

#[tokio::test]
async fn a_locked_history_is_waited_for_no_longer_than_any_table() {
    let test = TestDatabase::create().await;
    let database = test.database();
    run(&database, &[FIRST]).await.expect("a run");
    let other = test.session().await;
    other.batch_execute("BEGIN; LOCK TABLE refinery_schema_history").await.expect("locked");
    let impatient = Options { lock_timeout: Duration::from_millis(200), ..options() };
    let files = known(&[FIRST, SECOND]);
    let run_now = migrations::run(&database, &files, &impatient, &|_| {});
    let error = tokio::time::timeout(Duration::from_secs(10), run_now).await.expect("it gives up");
    let error = error.expect_err("locked out");
    assert!(error.is_outage(), "{error}");
    other.batch_execute("ROLLBACK").await.expect("unlocked");
    assert_eq!(run(&database, &[FIRST, SECOND]).await.expect("a run").applied.len(), 1);
}

#[tokio::test]
async fn an_index_that_came_out_invalid_is_said_and_replaced_on_the_next_run() {
    let test = TestDatabase::create().await;
    let database = test.database();
    run(&database, &[FIRST, SECOND]).await.expect("a run");
    let session = test.session().await;
    session.batch_execute("INSERT INTO people VALUES (1, 'Ada'), (2, 'Ada')").await.expect("twins");
    let error = run(&database, &[FIRST, SECOND, INDEX]).await.expect_err("not unique");
    assert!(matches!(error, MigrationError::Failed { undone: false, line: Some(2), .. }), "{error}");

    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'people_name'::regclass";
    assert!(!session.query_one(valid, &[]).await.expect("left behind").get::<_, bool>(0));
    session.batch_execute("DELETE FROM people WHERE id = 2").await.expect("no twins");
    run(&database, &[FIRST, SECOND, INDEX]).await.expect("a run");
    assert!(session.query_one(valid, &[]).await.expect("the index").get::<_, bool>(0));
}

#[tokio::test]
async fn a_rehearsal_runs_everything_it_can_and_keeps_nothing() {
    let test = TestDatabase::create().await;
    let database = test.database();
    let files = [FIRST, SECOND, INDEX, ("V0004__last", "CREATE TABLE last ();")];
    let dry = migrations::dry_run(&database, &known(&files), &options(), &|_| {}).await.expect("a rehearsal");
    let tried: Vec<bool> = dry.would_apply.iter().map(|due| due.rehearsed_millis.is_some()).collect();
    assert_eq!(tried, [true, true, false, false]);
    assert!(dry.to_string().contains("-- V0002__add_age.sql\nALTER TABLE people"), "{dry}");
    assert!(columns(&test.session().await).await.is_empty());
    assert_eq!(migrations::schema_version(&database).await.expect("a version"), 0);

    let bad = [FIRST, ("V0002__bad", "ALTER TABLE nowhere ADD x int")];
    let error =
        migrations::dry_run(&database, &known(&bad), &options(), &|_| {}).await.expect_err("it fails");
    assert_eq!(error.code(), "migration_failed");
    assert_eq!(run(&database, &files).await.expect("a run").applied.len(), 4);
}

#[tokio::test]
async fn waiting_for_another_runner_is_bounded_and_names_it() {
    let test = TestDatabase::create().await;
    let database = test.database();
    run(&database, &[FIRST]).await.expect("a run");
    assert_eq!(migrations::who_holds(&database).await.expect("an answer"), None);
    assert!(migrations::terminate(&database).await.expect("an answer").is_none());

    let stuck = tokio::spawn({
        let database = database.clone();
        async move { run(&database, &[FIRST, STUCK]).await }
    });
    eventually("the runner sits in its migration", async || {
        let holder = migrations::who_holds(&database).await.expect("an answer");
        holder.is_some_and(|holder| holder.query.is_some_and(|query| query.contains("pg_sleep")))
    })
    .await;

    let impatient = Options { wait: Duration::from_millis(300), ..options() };
    let files = known(&[FIRST, SECOND]);
    let error = migrations::run(&database, &files, &impatient, &|_| {}).await.expect_err("busy");
    assert!(error.is_outage() && error.to_string().contains("colloquy-migrate/"), "{error}");

    let ended = migrations::terminate(&database).await.expect("an answer").expect("a runner");
    assert!(ended.ended && ended.holder.state.as_deref() == Some("active"), "{ended}");
    assert!(ended.holder.since.is_some() && ended.to_string().contains("the lock is free"), "{ended}");
    let error = stuck.await.expect("no panic").expect_err("ended");
    assert!(error.is_outage(), "{error}");
    assert_eq!(columns(&test.session().await).await, ["people.id", "people.name"]);
    assert_eq!(run(&database, &[FIRST, SECOND]).await.expect("a run").current, 2);
}

#[tokio::test]
async fn a_runner_given_up_in_the_middle_frees_the_lock() {
    let test = TestDatabase::create().await;
    let database = test.database();
    let migrating = run(&database, &[FIRST, STUCK]);
    tokio::time::timeout(Duration::from_millis(700), migrating).await.expect_err("given up");
    assert_eq!(run(&database, &[FIRST, SECOND]).await.expect("a run").current, 2);
}

const CHILD: &str = "COLLOQUY_TEST_MIGRATE_AND_HANG";

#[tokio::test]
#[ignore = "the process that the next test kills"]
async fn child_that_hangs_in_a_migration() {
    let url = std::env::var(CHILD).expect("set by the test that starts this one");
    let database = Database::new(DatabaseSettings::new(SecretString::from(url)), None).expect("settings");
    panic!("the migration ended: {:?}", run(&database, &[FIRST, STUCK]).await);
}

#[tokio::test]
async fn a_runner_killed_in_mid_statement_frees_the_lock_and_leaves_the_old_schema_whole() {
    let test = TestDatabase::create().await;
    let database = test.database();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", "database::tests::migrations::child_that_hangs_in_a_migration"])
        .env(CHILD, test.direct.as_str())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let pid = child.id().to_string();
    eventually("the child sits in its migration", async || {
        let holder = migrations::who_holds(&database).await.expect("an answer");
        holder.is_some_and(|holder| {
            holder.application_name.as_ref().is_some_and(|name| name.ends_with(&pid))
                && holder.query.as_ref().is_some_and(|query| query.contains("pg_sleep"))
        })
    })
    .await;
    child.kill().expect("SIGKILL");
    child.wait().expect("gone");

    let killed = Instant::now();
    let report = run(&database, &[FIRST]).await.expect("the lock is free");
    assert!(killed.elapsed() < Duration::from_secs(5), "after {:?}", killed.elapsed());
    assert!(report.applied.is_empty(), "what was committed before stays");
    assert_eq!(columns(&test.session().await).await, ["people.id", "people.name"]);
    assert_eq!(run(&database, &[FIRST, SECOND]).await.expect("a run").current, 2);
}

#[tokio::test]
async fn a_pooler_in_place_of_the_direct_connection_is_recognised() {
    let test = TestDatabase::create().await;
    let mut settings = test.settings();
    settings.direct_url = Some(SecretString::from(test.pooled.as_str()));
    let database = Database::new(settings, None).expect("settings");
    let error = run(&database, &[FIRST]).await.expect_err("refused");
    assert!(matches!(error, MigrationError::NotDirect { .. }), "{error}");
    assert!(error.to_string().contains("DATABASE_DIRECT_URL"), "{error}");
}

#[tokio::test]
async fn refinery_itself_reads_our_history_and_finds_nothing_to_do() {
    let test = TestDatabase::create().await;
    run(&test.database(), &[FIRST, SECOND]).await.expect("a run");
    let files =
        [FIRST, SECOND].map(|(name, sql)| refinery::Migration::unapplied(name, sql).expect("a migration"));
    let runner = refinery::Runner::new(&files);
    let mut session = test.session().await;
    let report = runner.run_async(&mut session).await.expect("a run of refinery's");
    assert!(report.applied_migrations().is_empty());
    let applied = runner.get_applied_migrations_async(&mut session).await.expect("history");
    assert_eq!(applied, files);
}

#[test]
fn every_file_of_the_directory_is_embedded_and_valid() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = std::fs::read_dir(directory).expect("migrations/").map(|file| file.expect("a file").path());
    let files = names.filter(|path| path.extension().is_some_and(|extension| extension == "sql")).count();
    let embedded = Migrations::embedded().expect("valid files");
    assert_eq!(embedded.iter().count(), files);
}
