//! Page tokens: whole lists without gaps or repeats, and nothing in a token for anyone else.

use crate::client::Client;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

const RECORDS: &str = "/v1/tenants/acme/tables/calls/records";

async fn fill(client: &Client, keys: &BTreeSet<String>) {
    for key in keys {
        let answer = client.json("PUT", &format!("{RECORDS}/{key}"), &[], json!({"fields": {}})).await;
        assert_eq!(answer.status, 201);
    }
}

async fn walk(client: &Client, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let page = client.get(&format!("{RECORDS}?{query}{token}")).await.json();
        let keys = page["records"].as_array().unwrap().iter();
        found.extend(keys.map(|record| record["key"].as_str().unwrap().to_owned()));
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return found,
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pages_of_any_size_are_the_whole_list(
        keys in proptest::collection::btree_set("[a-c]{1,3}", 0..20),
        limit in 1usize..6,
        from in "[a-c]{1,2}",
    ) {
        block_on(async {
            let client = Client::new();
            fill(&client, &keys).await;
            let wanted: Vec<_> = keys.iter().filter(|key| **key >= from).cloned().collect();
            prop_assert_eq!(walk(&client, &format!("limit={limit}&from={from}")).await, wanted);
            let wanted: Vec<_> = keys.iter().filter(|key| key.starts_with(&from)).cloned().collect();
            prop_assert_eq!(walk(&client, &format!("limit={limit}&prefix={from}")).await, wanted);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_token_is_of_its_user_its_list_and_its_parameters() {
    let mut client = Client::new();
    fill(&client, &["secret-a", "secret-b"].map(str::to_owned).into()).await;
    let page = client.get(&format!("{RECORDS}?limit=1&prefix=s")).await.json();
    let token = page["next_page_token"].as_str().unwrap().to_owned();
    assert!(!token.contains("secret"));
    let next = |path: String| {
        let client = &client;
        async move { client.get(&path).await.status.as_u16() }
    };
    assert_eq!(next(format!("{RECORDS}?limit=9&prefix=s&page_token={token}")).await, 200);
    assert_eq!(next(format!("{RECORDS}?limit=1&page_token={token}")).await, 422);
    assert_eq!(next(format!("{RECORDS}?limit=1&from=s&page_token={token}")).await, 422);
    assert_eq!(next(format!("/v1/tenants/acme/tables/notes/records?prefix=s&page_token={token}")).await, 422);
    assert_eq!(next(format!("/v1/tenants/acme/conflicts?page_token={token}")).await, 422);
    let mut changed = token.clone().into_bytes();
    changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    assert_eq!(next(format!("{RECORDS}?prefix=s&page_token={changed}")).await, 422);
    client.bearer = Some(client.core.token("bob", client.address));
    let answer = client.get(&format!("{RECORDS}?limit=1&prefix=s&page_token={token}")).await;
    assert_eq!(answer.json()["violations"][0]["at"], "page_token");
}

#[tokio::test]
async fn places_the_core_names_come_back_to_it_sealed() {
    let client = Client::new();
    let mut path = "/v1/tenants/acme/conflicts".to_owned();
    let mut pages = 0;
    loop {
        let page = client.get(&path).await.json();
        pages += 1;
        let Some(token) = page["next_page_token"].as_str() else { break };
        assert!(!token.contains('+'));
        path = format!("/v1/tenants/acme/conflicts?page_token={token}");
    }
    assert_eq!(pages, 4);
}
