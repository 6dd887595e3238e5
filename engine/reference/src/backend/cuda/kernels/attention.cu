// Attention over pages of mixed formats, on tensor cores (mma.sync m16n8k16, 16-bit in, 32-bit
// sums). A warp takes one page of 16 tokens at a time, straight from memory into the registers
// that mma wants: instead of shuffling data into the order of the operands, the order of the sum
// over dimensions (for scores) and of the columns (for outputs) is chosen so that every lane reads
// whole 16- or 32-byte pieces.
//
//   scores   lane (r, c) = (lane / 4, lane % 4) holds of token r the numbers 64 g + 16 c .. + 15;
//            the four steps of 16 dimensions in a group of 64 take four of them each
//   outputs  lane (r, c) holds of tokens 2c, 2c+1, 2c+8, 2c+9 the r-th eighth of the numbers
//
// The scale of an 8-bit page is applied to scores and weights, not to each number.

#if PAGE != 16 || HEAD_DIM % 64 != 0 || HEAD_DIM > 128 || HEADS > 16 * KV_HEADS
#error "a page has 16 tokens, a head 64 or 128 numbers, a key-value head serves 16 query heads at most"
#endif

#define KSTEPS (HEAD_DIM / 16)
#define GROUPS (HEAD_DIM / 64)
// Output columns come in tiles of 8; column r of tile j is number COLUMN * r + j.
#define COLUMN (HEAD_DIM / 8)
#define TILES (HEAD_DIM / 8)

// Blocks that a multiprocessor must be able to hold: on Hopper three, which take no register to memory;
// elsewhere the compiler would, so it is left free.
#if __CUDA_ARCH__ == 900
#define RESIDENT 3
#else
#define RESIDENT 1
#endif

// `COUNT` numbers (8 or 16) as they are stored: 16-bit ones take all words, 8-bit ones the first half.
template <int COUNT> struct Raw {
    u32 word[COUNT / 2];
};

// Reads numbers of 16 or 8 bits from `at`, in pieces of 16 bytes where there are as many.
template <bool WIDE, int COUNT>
__device__ __forceinline__ void read(Raw<COUNT> &raw, const u8 *base, u64 at) {
    const u8 *from = base + (WIDE ? 2 * at : at);
    const int bytes = WIDE ? 2 * COUNT : COUNT;
    if (bytes == 8) {
        uint2 v = *(const uint2 *)from;
        raw.word[0] = v.x, raw.word[1] = v.y;
    }
#pragma unroll
    for (int i = 0; i < bytes / 16; i++) {
        uint4 v = ((const uint4 *)from)[i];
        raw.word[4 * i] = v.x, raw.word[4 * i + 1] = v.y, raw.word[4 * i + 2] = v.z, raw.word[4 * i + 3] = v.w;
    }
}

// A lane's part of a page, as stored.
struct Part {
    Raw<16> keys[2][GROUPS];
    Raw<COLUMN> values[4]; // of tokens 2c, 2c + 1 and 2c + 8, 2c + 9
};

template <bool WIDE>
__device__ __forceinline__ void read_keys(Part &part, const u8 *base, u64 keys) {
    int lane = threadIdx.x & 31, r = lane >> 2, c = lane & 3;
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) read<WIDE>(part.keys[t][g], base, keys + (u64)(8 * t + r) * HEAD_DIM + 64 * g + 16 * c);
}

template <bool WIDE>
__device__ __forceinline__ void read_values(Part &part, const u8 *base, u64 values) {
    int lane = threadIdx.x & 31, r = lane >> 2, c = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int token = 2 * c + (i & 1) + 8 * (i >> 1);
        read<WIDE>(part.values[i], base, values + (u64)token * HEAD_DIM + COLUMN * r);
    }
}

// The numbers 2i and 2i + 1 as 16-bit floats.
template <u32 FORMAT, int COUNT>
__device__ __forceinline__ u32 pair(const Raw<COUNT> &raw, int i) {
    if (FORMAT == FORMAT_F16) return raw.word[i];
    u32 two = i & 1 ? raw.word[i / 2] >> 16 : raw.word[i / 2] & 0xffff;
    return FORMAT == FORMAT_FP8 ? widen_fp8(two) : widen_int8(two);
}

// Sixteen rows of queries and what they have gathered so far.
struct Rows {
    u32 q[KSTEPS][4];
    float out[TILES][4];
    float top[2], sum[2];
};

__device__ __forceinline__ void clear(Rows &rows) {
#pragma unroll
    for (int j = 0; j < TILES; j++) rows.out[j][0] = rows.out[j][1] = rows.out[j][2] = rows.out[j][3] = 0.f;
    rows.top[0] = rows.top[1] = -INFINITY;
    rows.sum[0] = rows.sum[1] = 0.f;
}

// Loads the queries of rows r and r + 8, or zeros where the pointer is null, in the order of the keys.
__device__ __forceinline__ void load_queries(Rows &rows, const f16 *low, const f16 *high) {
    int c = threadIdx.x & 3;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
        for (int s = 0; s < 4; s++) {
            int at = 64 * g + 16 * c + 4 * s;
            u32(&q)[4] = rows.q[4 * g + s];
            q[0] = low ? *(const u32 *)(low + at) : 0u;
            q[1] = high ? *(const u32 *)(high + at) : 0u;
            q[2] = low ? *(const u32 *)(low + at + 2) : 0u;
            q[3] = high ? *(const u32 *)(high + at + 2) : 0u;
        }
}

// Takes in one page of which the first `seen[i]` tokens are visible to row r + 8 i. Without HIGH there are
// no rows r + 8, and nothing is kept for them.
template <bool HIGH, u32 FORMAT>
__device__ __forceinline__ void take_page_of(Rows &rows, const PageDesc &page, u32 layer, u32 head, int seen0, int seen1, float factor) {
    int c = threadIdx.x & 3;
    u64 keys = stripe(layer, 0, head) * PAGE * HEAD_DIM, values = stripe(layer, 1, head) * PAGE * HEAD_DIM;
    const bool scaled = FORMAT != FORMAT_F16;
    float key_scale = scaled ? page.scales[stripe(layer, 0, head)] : 1.f;
    float value_scale = scaled ? page.scales[stripe(layer, 1, head)] : 1.f;
    // All of a page of 8 bits is asked for before anything is computed, so that it costs one wait for
    // memory; of 16 bits that would take more registers than three blocks on a multiprocessor have.
    Part part;
    read_keys<!scaled>(part, page.data, keys);
    if (scaled) read_values<!scaled>(part, page.data, values);
    float score[2][4] = {{0.f, 0.f, 0.f, 0.f}, {0.f, 0.f, 0.f, 0.f}};
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
#pragma unroll
            for (int s = 0; s < 4; s++) {
                mma(score[t], rows.q[4 * g + s], pair<FORMAT>(part.keys[t][g], 2 * s), pair<FORMAT>(part.keys[t][g], 2 * s + 1));
            }
        }
    if (!scaled) read_values<!scaled>(part, page.data, values);
    float scale = factor * key_scale;
    float top0 = -INFINITY, top1 = -INFINITY;
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int token = 8 * t + 2 * c + i;
            score[t][i] = token < seen0 ? score[t][i] * scale : -INFINITY;
            score[t][2 + i] = HIGH && token < seen1 ? score[t][2 + i] * scale : -INFINITY;
            top0 = fmaxf(top0, score[t][i]);
            top1 = fmaxf(top1, score[t][2 + i]);
        }
#pragma unroll
    for (int offset = 1; offset < 4; offset <<= 1) {
        top0 = fmaxf(top0, __shfl_xor_sync(0xffffffffu, top0, offset));
        if (HIGH) top1 = fmaxf(top1, __shfl_xor_sync(0xffffffffu, top1, offset));
    }
    float new0 = fmaxf(rows.top[0], top0), new1 = HIGH ? fmaxf(rows.top[1], top1) : -INFINITY;
    // Rows that have seen nothing yet stay as they are.
    float keep0 = new0 == -INFINITY ? 1.f : exp2f(rows.top[0] - new0), keep1 = new1 == -INFINITY ? 1.f : exp2f(rows.top[1] - new1);
    float base0 = new0 == -INFINITY ? 0.f : new0, base1 = new1 == -INFINITY ? 0.f : new1;
    float sum0 = 0.f, sum1 = 0.f;
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            score[t][i] = exp2f(score[t][i] - base0), sum0 += score[t][i];
            score[t][2 + i] = HIGH ? exp2f(score[t][2 + i] - base1) : 0.f, sum1 += score[t][2 + i];
        }
    rows.top[0] = new0, rows.top[1] = new1;
    rows.sum[0] = rows.sum[0] * keep0 + sum0, rows.sum[1] = rows.sum[1] * keep1 + sum1;
    u32 weight[4] = {pack(score[0][0] * value_scale, score[0][1] * value_scale), pack(score[0][2] * value_scale, score[0][3] * value_scale),
                     pack(score[1][0] * value_scale, score[1][1] * value_scale), pack(score[1][2] * value_scale, score[1][3] * value_scale)};
    // Number COLUMN * r + j for tile j. What lies beyond a sequence's end has weight zero but must be a
    // number: pages are cleared when taken.
#pragma unroll
    for (int pairs = 0; pairs < TILES / 2; pairs++) {
        u32 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = pair<FORMAT>(part.values[i], pairs);
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            float(&to)[4] = rows.out[2 * pairs + odd];
            float out[4] = {to[0] * keep0, to[1] * keep0, 0.f, 0.f};
            if (HIGH) out[2] = to[2] * keep1, out[3] = to[3] * keep1;
            u32 select = odd ? 0x7632 : 0x5410;
            mma(out, weight, __byte_perm(v[0], v[1], select), __byte_perm(v[2], v[3], select));
            to[0] = out[0], to[1] = out[1];
            if (HIGH) to[2] = out[2], to[3] = out[3];
        }
    }
}

template <bool HIGH>
__device__ __forceinline__ void take_page(Rows &rows, const PageDesc &page, u32 layer, u32 head, int seen0, int seen1, float factor) {
    if (page.format == FORMAT_F16) {
        take_page_of<HIGH, FORMAT_F16>(rows, page, layer, head, seen0, seen1, factor);
    } else if (page.format == FORMAT_FP8) {
        take_page_of<HIGH, FORMAT_FP8>(rows, page, layer, head, seen0, seen1, factor);
    } else {
        take_page_of<HIGH, FORMAT_INT8>(rows, page, layer, head, seen0, seen1, factor);
    }
}

__device__ __forceinline__ void finish_sums(Rows &rows) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int offset = 1; offset < 4; offset <<= 1) rows.sum[i] += __shfl_xor_sync(0xffffffffu, rows.sum[i], offset);
}

// Output columns of a lane: of tile j, columns 2c and 2c + 1.
__device__ __forceinline__ int column(int j, int i) { return COLUMN * (2 * (threadIdx.x & 3) + i) + j; }

// Decoding: one token per span, all query heads of a key-value head in one tile of 16 rows. The pages
// of a sequence are split over gridDim.z blocks and their warps; `combine` puts them together, unless
// there is one block only, which writes its result itself.
// Grid (KV_HEADS, spans, splits), 128 threads.
KERNEL __launch_bounds__(128, RESIDENT) attention_decode(const f16 *__restrict__ queries, const Span *__restrict__ spans, const u32 *__restrict__ page_list,
                                                                   const PageDesc *__restrict__ pages, u32 layer, float *__restrict__ partial, float2 *__restrict__ sums,
                                                                   real *__restrict__ out) {
    __shared__ float shared_out[16][HEAD_DIM];
    __shared__ float shared_top[4][16], shared_sum[4][16];
    u32 head = blockIdx.x, split = blockIdx.z, splits = gridDim.z;
    Span span = spans[blockIdx.y];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, r = lane >> 2;
    const f16 *q = queries + ((u64)span.row * HEADS + head * GROUP) * HEAD_DIM;
    Rows rows;
    clear(rows);
    load_queries(rows, r < GROUP ? q + r * HEAD_DIM : 0, GROUP > 8 && r + 8 < GROUP ? q + (r + 8) * HEAD_DIM : 0);
    int context = span.start + 1, count = (context + PAGE - 1) / PAGE;
    float factor = rsqrtf((float)HEAD_DIM) * 1.4426950408889634f;
    // Where the next page lies is asked for before this one is read: else each page waits for three
    // reads, one after the other.
    int stride = splits * 4, first = split * 4 + warp;
    PageDesc next = pages[page_list[first < count ? span.pages + first : 0]];
    for (int p = first; p < count; p += stride) {
        PageDesc page = next;
        next = pages[page_list[p + stride < count ? span.pages + p + stride : 0]];
        int seen = context - p * PAGE;
        take_page<(GROUP > 8)>(rows, page, layer, head, seen, seen, factor);
    }
    finish_sums(rows);
    if ((lane & 3) == 0) {
        shared_top[warp][r] = rows.top[0], shared_top[warp][r + 8] = rows.top[1];
        shared_sum[warp][r] = rows.sum[0], shared_sum[warp][r + 8] = rows.sum[1];
    }
    __syncthreads();
    float top[2], factor_of[2], sum[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = r + 8 * i;
        top[i] = -INFINITY;
        for (int w = 0; w < 4; w++) top[i] = fmaxf(top[i], shared_top[w][row]);
        sum[i] = 0.f;
        for (int w = 0; w < 4; w++)
            if (shared_top[w][row] > -INFINITY) sum[i] += shared_sum[w][row] * exp2f(shared_top[w][row] - top[i]);
        factor_of[i] = rows.top[i] > -INFINITY ? exp2f(rows.top[i] - top[i]) : 0.f;
    }
    for (int w = 0; w < 4; w++) {
        if (w == warp) {
#pragma unroll
            for (int j = 0; j < TILES; j++)
#pragma unroll
                for (int i = 0; i < (GROUP > 8 ? 4 : 2); i++) {
                    int row = r + 8 * (i >> 1);
                    float value = rows.out[j][i] * factor_of[i >> 1];
                    float *place = &shared_out[row][column(j, i & 1)];
                    *place = w == 0 ? value : *place + value;
                }
        }
        __syncthreads();
    }
    if (splits == 1) {
        if (warp == 0 && (lane & 3) == 0) shared_sum[0][r] = sum[0], shared_sum[0][r + 8] = sum[1];
        __syncthreads();
        real *to = out + ((u64)span.row * HEADS + head * GROUP) * HEAD_DIM;
        for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += 128) store(&to[i], shared_out[i / HEAD_DIM][i % HEAD_DIM] / shared_sum[0][i / HEAD_DIM]);
        return;
    }
    u64 base = ((u64)blockIdx.y * KV_HEADS + head) * splits + split;
    for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += 128) partial[base * GROUP * HEAD_DIM + i] = shared_out[i / HEAD_DIM][i % HEAD_DIM];
    if (warp == 0 && (lane & 3) == 0)
        for (int i = 0; i < 2; i++)
            if (r + 8 * i < GROUP) sums[base * GROUP + r + 8 * i] = make_float2(top[i], sum[i]);
}

// Grid (HEADS, spans), HEAD_DIM threads.
KERNEL combine(const float *__restrict__ partial, const float2 *__restrict__ sums, const Span *__restrict__ spans, u32 splits, real *__restrict__ out) {
    u32 head = blockIdx.x / GROUP, row = blockIdx.x % GROUP;
    u64 base = ((u64)blockIdx.y * KV_HEADS + head) * splits;
    float top = -INFINITY;
    for (u32 s = 0; s < splits; s++) top = fmaxf(top, sums[(base + s) * GROUP + row].x);
    float value = 0.f, total = 0.f;
    for (u32 s = 0; s < splits; s++) {
        float2 part = sums[(base + s) * GROUP + row];
        if (part.x == -INFINITY) continue;
        float weight = exp2f(part.x - top);
        value += weight * partial[((base + s) * GROUP + row) * HEAD_DIM + threadIdx.x];
        total += weight * part.y;
    }
    store(&out[((u64)spans[blockIdx.y].row * HEADS + blockIdx.x) * HEAD_DIM + threadIdx.x], value / total);
}

// Prefill: rows of a tile are query heads of a group by token, so 16 rows share a key-value head.
// Each warp has a tile of its own. Grid (KV_HEADS, tiles); `tiles` names the span and the first row of
// 64 (token * GROUP + head in group). 128 threads.
KERNEL __launch_bounds__(128, RESIDENT) attention_prefill(const f16 *__restrict__ queries, const Span *__restrict__ spans, const uint2 *__restrict__ tiles,
                                                                    const u32 *__restrict__ page_list, const PageDesc *__restrict__ pages, u32 layer, real *__restrict__ out) {
    u32 head = blockIdx.x;
    // The last tiles of a span see most and take longest, so they begin first.
    uint2 tile = tiles[gridDim.y - 1 - blockIdx.y];
    Span span = spans[tile.x];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, r = lane >> 2;
    int low = tile.y + 16 * warp + r, high = low + 8, all = span.tokens * GROUP;
    const f16 *q = queries + (u64)span.row * HEADS * HEAD_DIM;
    auto place = [&](int row) { return ((u64)(row / GROUP) * HEADS + head * GROUP + row % GROUP) * HEAD_DIM; };
    Rows rows;
    clear(rows);
    load_queries(rows, low < all ? q + place(low) : 0, high < all ? q + place(high) : 0);
    int see_low = low < all ? span.start + low / GROUP + 1 : 0, see_high = high < all ? span.start + high / GROUP + 1 : 0;
    int last = min((int)(tile.y + 16 * warp + 15), all - 1);
    int count = last < (int)(tile.y + 16 * warp) ? 0 : (span.start + last / GROUP + PAGE) / PAGE;
    float factor = rsqrtf((float)HEAD_DIM) * 1.4426950408889634f;
    PageDesc next = pages[page_list[count ? span.pages : 0]];
    for (int p = 0; p < count; p++) {
        PageDesc page = next;
        next = pages[page_list[p + 1 < count ? span.pages + p + 1 : 0]];
        take_page<true>(rows, page, layer, head, see_low - p * PAGE, see_high - p * PAGE, factor);
    }
    finish_sums(rows);
    real *to = out + (u64)span.row * HEADS * HEAD_DIM;
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = i < 2 ? low : high;
            if (row < all) store(&to[place(row) + column(j, i & 1)], rows.out[j][i] / rows.sum[i >> 1]);
        }
}
