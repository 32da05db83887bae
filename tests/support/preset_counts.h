// The parameters of every preset: published counts, which equal Hugging Face's where such a model exists.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace mixtape {

struct PresetCount {
  std::string_view name;
  int64_t parameters;
};

// chinchilla-70b (rotary positions), llama-1b (no published model) and the Transformer (published as about 65 and 213
// million) state their own counts. bert: BertForMaskedLM.
constexpr std::array preset_counts{
    PresetCount{"gpt2", 124439808},
    PresetCount{"gpt2-medium", 354823168},
    PresetCount{"gpt2-large", 774030080},
    PresetCount{"gpt2-xl", 1557611200},
    PresetCount{"gpt3-125m", 125226240},
    PresetCount{"gpt3-350m", 355871744},
    PresetCount{"gpt3-760m", 760300032},
    PresetCount{"gpt3-1.3b", 1315723264},
    PresetCount{"gpt3-2.7b", 2651553280},
    PresetCount{"gpt3-6.7b", 6658404352},
    PresetCount{"gpt3-13b", 12853386240},
    PresetCount{"gpt3-175b", 174604259328},
    PresetCount{"llama-7b", 6738415616},
    PresetCount{"llama-13b", 13015864320},
    PresetCount{"llama-33b", 32528943616},
    PresetCount{"llama-65b", 65285660672},
    PresetCount{"llama-3-8b", 8030261248},
    PresetCount{"llama-1b", 1038682112},
    PresetCount{"smollm2-135m", 134515008},
    PresetCount{"bloom-560m", 559214592},
    PresetCount{"bloom-1b1", 1065314304},
    PresetCount{"bloom-1b7", 1722408960},
    PresetCount{"bloom-3b", 3002557440},
    PresetCount{"bloom-7b1", 7069016064},
    PresetCount{"bloom-176b", 176247271424},
    PresetCount{"opt-125m", 125239296},
    PresetCount{"opt-1.3b", 1315758080},
    PresetCount{"opt-6.7b", 6658473984},
    PresetCount{"opt-13b", 12853473280},
    PresetCount{"opt-30b", 29974540288},
    PresetCount{"opt-66b", 65719701504},
    PresetCount{"opt-175b", 174604468224},
    PresetCount{"chinchilla-70b", 64956014592},
    PresetCount{"j1-large", 7526293504},
    PresetCount{"j1-jumbo", 177951790080},
    PresetCount{"bloomberggpt-50b", 50558868480},
    PresetCount{"bert-base", 109514298},
    PresetCount{"bert-large", 335174458},
    PresetCount{"roberta-base", 124697433},
    PresetCount{"roberta-large", 355412057},
    PresetCount{"t5-small", 60506624},
    PresetCount{"t5-base", 222903552},
    PresetCount{"t5-large", 737668096},
    PresetCount{"t5-3b", 2851598336},
    PresetCount{"t5-11b", 11307321344},
    PresetCount{"t5-v1.1-small", 76961152},
    PresetCount{"t5-v1.1-base", 247577856},
    PresetCount{"t5-v1.1-large", 783150080},
    PresetCount{"t5-v1.1-xl", 2849757184},
    PresetCount{"t5-v1.1-xxl", 11135332352},
    PresetCount{"bart-base", 139420416},
    PresetCount{"bart-large", 406291456},
    PresetCount{"transformer-base", 63082496},
    PresetCount{"transformer-big", 214245376},
};

}  // namespace mixtape
