//! What an operator has stopped, as events meet it.

use super::*;

#[tokio::test]
async fn events_wait_for_a_model_that_is_held_and_are_given_up_for_an_owner_that_is_refused() {
    let crm = Crm::open_with("", |builder| builder.set("SWITCH_CACHE", "0s")).await;
    let set = async |switch: [&str; 3]| {
        let change = ["--reason", "a test", "--yes", "--json"];
        crm.app.json(&[&["switches", "set"][..], &switch, &change].concat()).await
    };
    assert_eq!(set(["model", "small", "--hold"]).await["stop"], "hold");
    crm.post("feedback.create", &[record("66f0c1d2a1b2c3d01", "Lovely.")]).await;
    let waits = "SELECT count(*) FROM jobs
                 WHERE state = 'pending' AND attempts = 0 AND outages = 0 AND epoch = 0";
    eventually("a job that waits", SOON, async || crm.count(waits).await == 1).await;
    eventually("its hint to be gone", SOON, async || crm.storage.is_empty().await).await;
    assert_eq!((crm.count(waits).await, crm.provider.seen().len()), (1, 0));
    let clear = ["switches", "clear", "model", "small", "--yes", "--json"];
    assert_eq!(crm.app.json(&clear).await["cleared"], true);
    assert_eq!(crm.told(1).await.len(), 1);

    // Whoever pays for what a source says, unless the route names somebody.
    set(["owner", "source:crm", "--refuse"]).await;
    crm.post("feedback.create", &[record("66f0c1d2a1b2c3d02", "Not so lovely.")]).await;
    let letters = crm.dead_letters(1).await;
    assert_eq!(letters[0]["reason_code"], "owner_refused", "{letters:?}");
    assert_eq!(crm.provider.seen().len(), 1, "nobody was asked for it");
}
