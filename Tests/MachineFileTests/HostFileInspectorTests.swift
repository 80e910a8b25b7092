// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import MachineFile

@Suite("The inspector of real files")
struct HostFileInspectorTests {
  @Test("kinds, sizes and identities of files")
  func kinds() throws {
    let folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("machine-file-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appendingPathComponent("file")
    let link = folder.appendingPathComponent("link")
    try Data(repeating: 1, count: 700).write(to: file)
    try FileManager.default.createSymbolicLink(at: link, withDestinationURL: file)
    let inspector = HostFileInspector()

    let status = inspector.status(of: file.path)

    #expect(status.kind == .regular)
    #expect(status.byteCount == 700)
    #expect(status.isReadable)
    #expect(status.isWritable)
    #expect(inspector.status(of: link.path) == status)
    #expect(inspector.status(of: folder.path).kind == .folder)
    #expect(inspector.status(of: folder.path).inode != status.inode)
    #expect(inspector.status(of: file.path + "/x").kind == .missing)
    #expect(inspector.status(of: folder.path + "/none").kind == .missing)
    #expect(inspector.status(of: "/dev/null").kind == .characterDevice)
  }

  @Test("the lock probe is asked with the path and the purpose")
  func probe() {
    let inspector = HostFileInspector { path, forWriting in path == "/x" && forWriting }

    #expect(inspector.isImageInUse("/x", forWriting: true))
    #expect(!inspector.isImageInUse("/x", forWriting: false))
    #expect(!HostFileInspector().isImageInUse("/x", forWriting: true))
  }
}
