//! A scope cannot be turned to another tenant.

fn turn(mut scope: identity::TenantScope) -> identity::TenantScope {
    scope.tenant = model::TenantId::new(6);
    scope
}

fn main() {
    let _ = turn;
}
