-- auto-route.lua: send every study to the node once nothing more has arrived for "StableAge" seconds.
-- A job per study is one association, can be resubmitted and shows its failure. SendToModality()
-- would take single images only, and count those it could not send as sent.
function OnStableStudy(study, tags, metadata)
  RestApiPost('/modalities/cbmir/store', DumpJson({ Resources = { study }, Synchronous = false }, true))
end
