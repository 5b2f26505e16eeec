//! Questions in SQL: exactly one SELECT over the one table, joined with itself only where that stays small.

use super::scan::EventsTable;
use super::{ArchiveError, Limits, refused};
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use std::sync::Arc;

/// The table's name.
const TABLE: &str = "events";

fn no(why: impl Into<String>) -> ArchiveError {
    ArchiveError::Question(why.into())
}

/// Plans a question over a table.
pub(super) async fn plan(context: &SessionContext, table: EventsTable, text: &str) -> Result<DataFrame, ArchiveError> {
    let wrong = |error| refused(error, Limits::default());
    let mut statements = DFParser::parse_sql(text).map_err(wrong)?;
    let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
        return Err(no("exactly one statement, please"));
    };
    match &statement {
        Statement::Statement(sql) if matches!(sql.as_ref(), Sql::Query(_)) => {}
        _ => return Err(no("only SELECT can be asked")),
    }
    context.register_table(TABLE, Arc::new(table)).map_err(wrong)?;
    let plan = context.state().statement_to_plan(statement).await.map_err(wrong)?;
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_reads.verify_plan(&plan).map_err(wrong)?;
    check(&plan)?;
    context.execute_logical_plan(plan).await.map_err(wrong)
}

/// Every node and expression of the plan is one that a question may have.
fn check(plan: &LogicalPlan) -> Result<(), ArchiveError> {
    let mut why = None;
    let walked = plan.apply_with_subqueries(|node| {
        why = refuse(node);
        if why.is_none() {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    why = why.take().or_else(|| refuse_expr(part));
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(if why.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|error| refused(error, Limits::default()))?;
    why.map_or(Ok(()), |why| Err(no(why)))
}

fn refuse(node: &LogicalPlan) -> Option<String> {
    match node {
        LogicalPlan::TableScan(scan) if scan.table_name.table() != TABLE => {
            Some(format!("there is no table '{}': there is only {TABLE}", scan.table_name))
        }
        LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::RecursiveQuery(_)
        | LogicalPlan::Unnest(_) => Some("only plain SELECT can be asked".into()),
        _ => None,
    }
}

/// What can make texts that are larger than what they are made of is refused: nobody counts their memory.
fn refuse_expr(expr: &Expr) -> Option<String> {
    match expr {
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => Some("|| cannot be used".into()),
        _ => None,
    }
}

/// Joins whose work can be the product of both sides are refused, because they could not be stopped.
pub(super) fn check_joins(plan: &dyn ExecutionPlan) -> Result<(), ArchiveError> {
    if plan.name().contains("Join") {
        let join = (plan as &dyn std::any::Any).downcast_ref::<HashJoinExec>();
        let is_half = |kind: &JoinType| {
            use JoinType::{LeftAnti, LeftMark, LeftSemi, RightAnti, RightMark, RightSemi};
            matches!(kind, LeftAnti | LeftMark | LeftSemi | RightAnti | RightMark | RightSemi)
        };
        if !join.is_some_and(|join| join.filter().is_none() && is_half(join.join_type())) {
            return Err(no("joins cannot be asked, except column IN (SELECT column FROM events WHERE …)"));
        }
    }
    plan.children().into_iter().try_for_each(|child| check_joins(child.as_ref()))
}
