/* The part of a request's path that is compiled C: one call handles hundreds of ids or candidates. The functions take plain
   pointers and sizes. The Python side (app/native) owns the memory and checks the sizes; layout.h lets it check that both
   sides mean the same structures. */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

#include "siphash.h"
#include "request_ids.h"
#include "id_index.h"
#include "write_items.h"
#include "resp.h"
#include "user_encoder.h"
#include "top_mlp.h"
#include "explore.h"
#include "layout.h"
