//! The policy document as it is written, each text with its place. Unknown keys are errors.

use serde::Deserialize;
use toml::Spanned;

type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBook {
    pub version: Spanned<u32>,
    #[serde(default)]
    pub person: Vec<Spanned<RawPerson>>,
    #[serde(default)]
    pub team: Vec<Spanned<RawTeam>>,
    #[serde(default)]
    pub webhook: Vec<Spanned<RawWebhook>>,
    #[serde(default)]
    pub schedule: Vec<Spanned<RawSchedule>>,
    #[serde(default)]
    pub policy: Vec<Spanned<RawPolicy>>,
    #[serde(default)]
    pub asset: Vec<Spanned<RawAsset>>,
    #[serde(default)]
    pub joining: RawJoining,
    #[serde(default)]
    pub risk: RawRisk,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJoining {
    #[serde(default)]
    pub never: Vec<Text>,
    pub window: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRisk {
    pub half_life: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAsset {
    pub entity: Text,
    pub criticality: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPerson {
    pub login: Text,
    pub email: Option<Text>,
    pub webhook: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTeam {
    pub name: Text,
    pub members: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    pub name: Text,
    pub url: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSchedule {
    pub name: Text,
    pub time_zone: Text,
    #[serde(default)]
    pub layer: Vec<Spanned<RawLayer>>,
    #[serde(default, rename = "override")]
    pub stand_in: Vec<Spanned<RawOverride>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLayer {
    pub members: Spanned<Vec<Text>>,
    pub from: Text,
    pub hand_over: Text,
    pub every_days: Spanned<u32>,
    pub days: Option<Vec<Text>>,
    pub hours: Option<Spanned<Vec<Text>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOverride {
    pub login: Text,
    pub from: Text,
    pub to: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub name: Text,
    pub severity_min: Text,
    #[serde(default)]
    pub tenants: Vec<Text>,
    #[serde(default = "never")]
    pub repeats: Spanned<u32>,
    #[serde(default)]
    pub step: Vec<Spanned<RawStep>>,
    #[serde(default)]
    pub fallback: Vec<Text>,
}

fn never() -> Spanned<u32> {
    Spanned::new(0..0, 0)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    pub notify: Vec<Text>,
    pub acknowledge_within: Text,
}
