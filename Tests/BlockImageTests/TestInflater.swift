// SPDX-License-Identifier: Apache-2.0

import ImageFiles

/// The decompressor that the programs use, too.
typealias TestInflater = Inflater
