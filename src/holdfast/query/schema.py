"""The tables that can be queried: those of Restate server 1.7, with its columns, their order and their types.

A test compares every one of them with a real server's `information_schema.columns`.
"""

from __future__ import annotations

from typing import Literal, cast

Type = Literal["text", "u32", "u64", "bool", "time", "duration", "bytes", "u32s", "texts"]
"""`time` is a timestamp in milliseconds, UTC; `duration` is in milliseconds; plurals are lists."""

NOT_NULL = frozenset({("sys_invocation", "status")})
VIEWS = frozenset({"sys_invocation"})
"""Tables that the server calls views."""

_STORED = """
    text: invoked_by_target restarted_from pinned_deployment_id
    u32: pinned_service_protocol_version
    text: trace_id
    u32: journal_size journal_commands_size
    time: created_at
    text: created_using_restate_version
    time: modified_at inboxed_at scheduled_at scheduled_start_at running_at completed_at
    duration: completion_retention journal_retention
    u32s: suspended_waiting_for_completions suspended_waiting_for_signals
    text: suspended_waiting_future_json
"""

_WAITS = (
    "on_invoker_concurrency",
    "on_throttling_rules",
    "on_invoker_throttling",
    "on_invoker_memory",
    "on_concurrency_rules",
    "on_lock",
    "on_deployment_concurrency",
)

_DEFINITIONS = {
    "sys_invocation": f"""
        text: id vqueue_id target target_service_name target_service_key target_handler_name target_service_ty
        text: scope limit_key idempotency_key invoked_by invoked_by_service_name invoked_by_id
        text: invoked_by_subscription_id
        {_STORED}
        u64: retry_count
        time: last_start_at next_retry_at
        text: last_attempt_deployment_id last_attempt_server last_failure last_failure_error_code
        u64: last_failure_related_entry_index
        text: last_failure_related_entry_name last_failure_related_entry_type
        u64: last_failure_related_command_index
        text: last_failure_related_command_name last_failure_related_command_type last_awaiting_on_future_json
        text: status completion_result completion_failure
    """,
    "sys_invocation_status": f"""
        u64: partition_key
        text: id vqueue_id status completion_result completion_failure target target_service_name target_service_key
        text: target_handler_name target_service_ty scope limit_key idempotency_key invoked_by invoked_by_id
        text: invoked_by_subscription_id invoked_by_service_name
        {_STORED}
    """,
    "sys_invocation_state": """
        u64: partition_key
        text: id
        bool: in_flight
        u64: retry_count
        time: last_start_at
        text: last_attempt_deployment_id last_attempt_server
        time: next_retry_at
        text: last_failure last_failure_error_code
        u64: last_failure_related_command_index
        text: last_failure_related_command_name last_failure_related_command_type
        u64: last_failure_related_entry_index
        text: last_failure_related_entry_name last_failure_related_entry_type last_awaiting_on_future_json
    """,
    "sys_journal": """
        u64: partition_key
        text: id
        u32: index
        text: entry_type name
        bool: completed
        text: invoked_id invoked_target
        time: sleep_wakeup_at
        text: promise_name
        bytes: raw
        u64: raw_length
        u32: version
        text: entry_json entry_lite_json
        time: appended_at
    """,
    "sys_journal_events": """
        u64: partition_key
        text: id
        u32: after_journal_entry_index
        time: appended_at
        text: event_type event_json
    """,
    "sys_inbox": """
        u64: partition_key
        text: service_name service_key id
        u64: sequence_number
        time: created_at
    """,
    "sys_keyed_service_status": """
        u64: partition_key
        text: service_name service_key invocation_id
    """,
    "sys_promise": """
        u64: partition_key
        text: scope service_name service_key key
        bool: completed
        bytes: completion_success_value
        text: completion_success_value_utf8 completion_failure
    """,
    "sys_service": """
        text: name
        u64: revision
        bool: public
        text: ty deployment_id
    """,
    "sys_deployment": """
        text: id ty endpoint
        time: created_at
        u32: min_service_protocol_version max_service_protocol_version
        texts: services
    """,
    "state": """
        u64: partition_key
        text: scope service_name service_key key
        u64: key_length
        text: value_utf8
        bytes: value
        u64: value_length
    """,
    # What follows belongs to features that are off in a server's default settings, and that we do not have: no rows.
    "sys_locks": """
        u64: partition_key
        text: scope lock_name
        time: acquired_at
        text: acquired_by
    """,
    "sys_rules": """
        text: pattern
        u32: concurrency
        text: description
        bool: disabled
        u32: version
        time: last_modified
    """,
    "sys_scheduler": """
        u64: partition_key
        text: id
        u64: num_inbox
        text: status head_entry_id
        time: scheduled_at
        text: blocked_on blocked_on_json
        duration: invoker_concurrency_block_duration throttling_rules_block_duration
        duration: invoker_throttling_block_duration invoker_memory_block_duration concurrency_rules_block_duration
        duration: lock_block_duration deployment_concurrency_block_duration
    """,
    "sys_user_limits": """
        u64: partition_key
        text: scope l1 l2 level
        u32: usage concurrency_limit
        text: rule_pattern
        u32: available
        u64: num_waiters
    """,
    "sys_vqueue_entry_status": f"""
        u64: partition_key
        text: entry_id vqueue_id stage status
        bool: has_lock
        time: next_at
        u64: sequence_number
        text: entry_kind
        time: created_at transitioned_at
        u32: num_attempts num_errors num_pauses num_suspensions num_yields
        time: first_attempt_at latest_attempt_at first_runnable_at
        text: deployment
        u64: needed_memory
        u32: retry_attempts retry_count_since_last_stored_command
        duration: {" ".join(f"latest_attempt_blocked_{wait}" for wait in _WAITS)}
        duration: {" ".join(f"total_blocked_{wait}" for wait in _WAITS)}
    """,
    "sys_vqueue_meta": """
        u64: partition_key
        text: id
        bool: is_active queue_is_paused
        text: service_name scope limit_key lock_name
        time: created_at last_enqueued_at last_start_at last_attempt_at last_finish_at
        duration: avg_queue_duration avg_inbox_duration avg_run_duration avg_suspension_duration
        duration: avg_end_to_end_duration avg_blocked_on_concurrency_rules avg_blocked_on_invoker_concurrency
        duration: avg_blocked_on_invoker_throttling avg_blocked_on_lock
        u64: num_inbox num_running num_suspended num_paused num_finished
    """,
    "sys_vqueues": """
        u64: partition_key
        text: id stage status
        bool: has_lock
        time: run_at
        u64: sequence_number
        text: entry_id entry_kind
        time: created_at transitioned_at
        u32: num_attempts num_errors num_pauses num_suspensions num_yields
        time: first_attempt_at latest_attempt_at first_runnable_at
        text: deployment
    """,
}


def _columns(definition: str) -> dict[str, Type]:
    columns: dict[str, Type] = {}
    for line in filter(None, map(str.strip, definition.splitlines())):
        kind, _, names = line.partition(":")
        columns |= dict.fromkeys(names.split(), cast(Type, kind))
    return columns


TABLES: dict[str, dict[str, Type]] = {name: _columns(definition) for name, definition in _DEFINITIONS.items()}
"""Table -> column -> type."""
