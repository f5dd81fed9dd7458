//! Requests with much that can be wrong with them, and good ones, as protobuf's text format has them.

/// A request's name, a bad one, and what is told of it.
pub(super) const BAD: &[(&str, &str, &[&str])] = &[
    (
        "CreateSnapshotRequest",
        r#"request_id: 'x' vm_id: '00000000-0000-0000-0000-000000000000' name: ' a' description: '\007' labels { key: 'A' value: '\007' } labels { key: '' } quiesce: 77"#,
        &[
            "request_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "vm_id must not be the nil UUID",
            "name must be 1 to 128 characters without control characters or blanks at the ends",
            "description must not have control characters",
            r#"labels[""] must have a key of 1 to 63 of `a-z 0-9 . / _ -`"#,
            r#"labels["A"] must have a key of 1 to 63 of `a-z 0-9 . / _ -`"#,
            r#"labels["A"] must not have control characters"#,
            "quiesce must be IF_POSSIBLE, REQUIRED, NEVER or unset",
        ],
    ),
    ("GetSnapshotRequest", "", &["snapshot_id is required"]),
    (
        "ListSnapshotsRequest",
        "vm_id: 'x' page_size: 1001",
        &[
            "vm_id must be `-`, or a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "page_size must be from 0 to 1000",
        ],
    ),
    (
        "UpdateSnapshotRequest",
        r#"request_id: '{0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f}' etag: '7' name: '' description: '\t' labels { labels { key: 'Ü' } }"#,
        &[
            "request_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "snapshot_id is required",
            "etag is not one that a snapshot had",
            "name is required",
            "description must not have control characters",
            r#"labels.labels["Ü"] must have a key of 1 to 63 of `a-z 0-9 . / _ -`"#,
        ],
    ),
    (
        "DeleteSnapshotRequest",
        "request_id: 'nope' etag: 'r' options { direction: 77 bytes_per_second: -1 }",
        &[
            "request_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "snapshot_id is required",
            "etag is not one that a snapshot had",
            "options.direction must be COMMIT, PULL or unset",
            "options.bytes_per_second must be 0 or more",
        ],
    ),
    (
        "BatchDeleteSnapshotsRequest",
        "snapshot_ids: 'a' snapshot_ids: '' snapshot_ids: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' snapshot_ids: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' options { bytes_per_second: -1 }",
        &[
            "request_id is required",
            "vm_id is required",
            "snapshot_ids must not have an entry twice",
            "snapshot_ids[0] must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "snapshot_ids[1] is required",
            "options.bytes_per_second must be 0 or more",
        ],
    ),
    (
        "PlanDeleteSnapshotRequest",
        "options { direction: -1 }",
        &[
            "snapshot_ids must have 1 to 1000 entries",
            "options.direction must be COMMIT, PULL or unset",
        ],
    ),
    (
        "GetOperationRequest",
        "operation_id: 'x'",
        &["operation_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f"],
    ),
    (
        "ListOperationsRequest",
        "vm_id: 'x' states: 0 states: OPERATION_STATE_QUEUED states: 9 page_size: -1",
        &[
            "vm_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "states[0] must be QUEUED, RUNNING, SUCCEEDED, FAILED or CANCELLED",
            "states[2] must be QUEUED, RUNNING, SUCCEEDED, FAILED or CANCELLED",
            "page_size must be from 0 to 1000",
        ],
    ),
    ("WatchOperationRequest", "", &["operation_id is required"]),
    (
        "WaitOperationRequest",
        "timeout { seconds: 3601 }",
        &[
            "operation_id is required",
            "timeout must be between 0ns and 3600s",
        ],
    ),
    ("CancelOperationRequest", "", &["operation_id is required"]),
    (
        "UpdateOperationRequest",
        "bytes_per_second: -1",
        &[
            "operation_id is required",
            "bytes_per_second must be 0 or more",
        ],
    ),
    (
        "RegisterHostRequest",
        r#"host_id: 'Host' endpoint: 'h1:7421' generation: -1 version: '\n\r'"#,
        &[
            "request_id is required",
            "host_id must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
            "endpoint must be `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`",
            "generation must be 0 or more",
            "version must not have control characters",
        ],
    ),
    (
        "ListHostsRequest",
        "page_size: -1",
        &["page_size must be from 0 to 1000"],
    ),
    ("GetHostRequest", "", &["host_id is required"]),
    (
        "SetHostMaintenanceRequest",
        "host_id: '.h'",
        &[
            "request_id is required",
            "host_id must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
        ],
    ),
    (
        "ListVmsRequest",
        r#"host_id: '-h' name: '\000' page_size: 1001"#,
        &[
            "host_id must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
            "name must not have control characters",
            "page_size must be from 0 to 1000",
        ],
    ),
    ("GetVmRequest", "", &["vm_id is required"]),
    (
        "GetVolumeChainRequest",
        "disk: 'vd a'",
        &[
            "vm_id is required",
            "disk must be 1 to 32 letters, digits or `_ -`, beginning with a letter",
        ],
    ),
    (
        "InventoryServiceListStoragesRequest",
        "host_id: 'h_1' page_size: -1",
        &[
            "host_id must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
            "page_size must be from 0 to 1000",
        ],
    ),
    (
        "InventoryServiceListRemovalsRequest",
        "storage: 'a.b' page_size: -1",
        &[
            "storage must be 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit",
            "page_size must be from 0 to 1000",
        ],
    ),
    (
        "InventoryServiceRestoreVolumeRequest",
        "storage: '-' removal_id: '00000000-0000-0000-0000-000000000000'",
        &[
            "request_id is required",
            "storage must be 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit",
            "removal_id must not be the nil UUID",
        ],
    ),
    (
        "CheckConsistencyRequest",
        "vm_id: '../etc' host_id: 'Host 1'",
        &[
            "vm_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "host_id must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
        ],
    ),
    (
        "ApplyRepairRequest",
        "finding_id: 'x-y'",
        &[
            "request_id is required",
            "finding_id must be the id of a finding as CheckConsistency gives it",
        ],
    ),
    (
        "ListEventsRequest",
        "vm_id: 'x' operation_id: 'y' page_size: -1 least_severity: 9 types: 0 types: 999",
        &[
            "vm_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "operation_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "page_size must be from 0 to 1000",
            "least_severity must be INFO, WARNING, ERROR or unset",
            "types[0] must be a type of EventType",
            "types[1] must be a type of EventType",
        ],
    ),
    (
        "WatchEventsRequest",
        "vm_id: 'x' operation_id: 'y' least_severity: 9 types: 0 heartbeat_interval { nanos: 49999999 }",
        &[
            "vm_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "operation_id must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f",
            "least_severity must be INFO, WARNING, ERROR or unset",
            "types[0] must be a type of EventType",
            "heartbeat_interval must be between 50ms and 15s",
        ],
    ),
    (
        "WatchHostRequest",
        "heartbeat_interval { seconds: 16 nanos: -1 }",
        &["heartbeat_interval must be between 50ms and 15s"],
    ),
    (
        "CreateOverlaysRequest",
        "generation: -1 overlays { disk: '1a' below { name: 'a..b' } } quiesce: -1",
        &[
            "request_id is required",
            "generation must be 1 or more",
            "vm_id is required",
            "overlays[0].disk must be 1 to 32 letters, digits or `_ -`, beginning with a letter",
            "overlays[0].below.storage is required",
            "overlays[0].below.name must be 1 to 200 of letters, digits and `_ . + -`, beginning with a letter, digit or `_`, without `..`",
            "overlays[0].overlay is required",
            "quiesce must be IF_POSSIBLE, REQUIRED, NEVER or unset",
            "sequence must be 1 or more",
        ],
    ),
    (
        "PlanMergeRequest",
        "disks { lowest { identity: 'a b' } forced: 77 } promised_elsewhere { bytes: -1 kept_bytes: -1 }",
        &[
            "vm_id is required",
            "disks[0].disk is required",
            "disks[0].lowest.volume is required",
            "disks[0].lowest.identity must be 1 to 200 printable ASCII characters without blanks",
            "disks[0].youngest is required",
            "disks[0].forced must be COMMIT, PULL or unset",
            "promised_elsewhere[0].kept is required",
            "promised_elsewhere[0].bytes must be 0 or more",
            "promised_elsewhere[0].kept_bytes must be 0 or more",
        ],
    ),
    (
        "StartMergeRequest",
        "disks { bytes_per_second: -1 removed { } spare { storage: 'A' name: '/' } } promised_elsewhere { }",
        &[
            "generation must be 1 or more",
            "vm_id is required",
            "disks[0].merge_id is required",
            "disks[0].disk is required",
            "disks[0].direction must be COMMIT or PULL",
            "disks[0].kept is required",
            "disks[0].removed[0].volume is required",
            "disks[0].removed[0].identity is required",
            "disks[0].bytes_per_second must be 0 or more",
            "disks[0].spare.storage must be 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit",
            "disks[0].spare.name must be 1 to 200 of letters, digits and `_ . + -`, beginning with a letter, digit or `_`, without `..`",
            "promised_elsewhere[0].kept is required",
            "sequence must be 1 or more",
        ],
    ),
    (
        "CancelMergeRequest",
        "",
        &["merge_id is required", "generation must be 1 or more"],
    ),
    (
        "SetMergeBandwidthRequest",
        "bytes_per_second: -1",
        &[
            "merge_id is required",
            "generation must be 1 or more",
            "bytes_per_second must be 0 or more",
        ],
    ),
    ("GetMergeRequest", "", &["merge_id is required"]),
    (
        "ListMergesRequest",
        "page_size: -1",
        &["page_size must be from 0 to 1000"],
    ),
    (
        "MergeServiceGetVolumeChainRequest",
        "disk: '-'",
        &[
            "vm_id is required",
            "disk must be 1 to 32 letters, digits or `_ -`, beginning with a letter",
        ],
    ),
    (
        "ListStoragesRequest",
        "page_size: -1",
        &["page_size must be from 0 to 1000"],
    ),
    (
        "ListVolumesRequest",
        "storage: 'A' page_size: -1",
        &[
            "storage must be 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit",
            "page_size must be from 0 to 1000",
        ],
    ),
    (
        "RemoveVolumeRequest",
        "identity: 'é' also { }",
        &[
            "request_id is required",
            "generation must be 1 or more",
            "volume is required",
            "identity must be 1 to 200 printable ASCII characters without blanks",
            "also[0].request_id is required",
            "also[0].volume is required",
            "also[0].identity is required",
        ],
    ),
    ("ListRemovalsRequest", "", &["storage is required"]),
    (
        "RestoreVolumeRequest",
        "",
        &[
            "generation must be 1 or more",
            "storage is required",
            "removal_id is required",
        ],
    ),
    (
        "GrowVolumeRequest",
        "volume { storage: 'a' name: '.a' }",
        &[
            "request_id is required",
            "generation must be 1 or more",
            "volume.name must be 1 to 200 of letters, digits and `_ . + -`, beginning with a letter, digit or `_`, without `..`",
            "identity is required",
            "virtual_bytes must be 1 or more",
        ],
    ),
];

/// A request's name, and a good one.
pub(super) const GOOD: &[(&str, &str)] = &[
    (
        "CreateSnapshotRequest",
        r#"request_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' vm_id: '0192F0C1-2B1A-7C3D-8E4F-5A6B7C8D9E0F' name: 'nightly 1' description: 'two\nlines' labels { key: 'team/a.b_c-1' value: '' }"#,
    ),
    ("ListSnapshotsRequest", "vm_id: '-' page_size: 1000"),
    (
        "UpdateSnapshotRequest",
        "request_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' snapshot_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' description: '' labels { }",
    ),
    (
        "DeleteSnapshotRequest",
        "request_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' snapshot_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' etag: 'r7' options { direction: MERGE_DIRECTION_PULL }",
    ),
    (
        "WaitOperationRequest",
        "operation_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' timeout { }",
    ),
    (
        "WatchEventsRequest",
        "heartbeat_interval { nanos: 50000000 } types: EVENT_TYPE_HOST_UP",
    ),
    (
        "RegisterHostRequest",
        "request_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' host_id: 'h.1' endpoint: 'unix:/run/a' generation: 1",
    ),
    (
        "RemoveVolumeRequest",
        "request_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f' generation: 1 volume { storage: 'a' name: '_a.b.' } identity: '!~' also { request_id: '0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e1f' volume { storage: 'a' name: 'b' } identity: '1' }",
    ),
];
