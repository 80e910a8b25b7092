// SPDX-License-Identifier: Apache-2.0

/// Placeholder.
public struct SandboxProfile: Sendable {}
